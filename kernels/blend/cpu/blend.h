// The blend of many images, its gradients and sums of weights, by the tile kernels of the best instruction set here.
#pragma once
#include <limits>
#include <type_traits>

#include "workspace.h"

namespace jsplat {

// The kernels of tiles.h for one instruction set.
template <class S>
struct Kernels {
  int lanes;
  void (*forward)(const Image<S>&, const Lists<S>&, int tile, const Shown<S>& out, S* scratch);
  void (*backward)(const Image<S>&, const Lists<S>&, int tile, int shaping, const Shown<const S>& shown,
                   const Shown<const S>& grad, S* rows, uint8_t* touched, S* scratch);
  void (*sums)(const Image<S>&, const Lists<S>&, int tile, const S* picture, S* rows, uint8_t* touched, S* scratch);
  size_t (*forward_scratch)(int channels), (*backward_scratch)(int channels), (*sums_scratch)(int channels);
  int (*hit_width)(int channels), (*sums_width)(int channels);
};

}  // namespace jsplat

#ifdef __clang__
#define INLINE_LAMBDA __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define TARGET_BEGIN(isa) PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define TARGET_END _Pragma("clang attribute pop")
#else
#define INLINE_LAMBDA __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define TARGET_BEGIN(isa) _Pragma("GCC push_options") PRAGMA(GCC target(isa))
#define TARGET_END _Pragma("GCC pop_options")
#endif

#ifdef __x86_64__
#define ISA v4
#define LANES 16
TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2")
#include "tiles.h"
TARGET_END
#undef ISA
#undef LANES
#define ISA v3
#define LANES 8
TARGET_BEGIN("avx2,fma,bmi,bmi2")
#include "tiles.h"
TARGET_END
#undef ISA
#undef LANES
#endif
#define ISA baseline
#define LANES 4
#include "tiles.h"
#undef ISA
#undef LANES

namespace jsplat {

// Instruction sets from the best to the one that every processor has; `name` of the first that this one has.
struct InstructionSet {
  const char* name;
  bool works;
  Kernels<float> single;
  Kernels<double> twice;
};

inline const InstructionSet* instruction_sets() {
  static const InstructionSet all[] = {
#ifdef __x86_64__
      {"x86-64-v4",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"),
       v4::kernels<float>(), v4::kernels<double>()},
      {"x86-64-v3",
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"),
       v3::kernels<float>(), v3::kernels<double>()},
#endif
      {"baseline", true, baseline::kernels<float>(), baseline::kernels<double>()},
  };
  return all;
}

inline const InstructionSet& instruction_set(int skip = 0) {
  const InstructionSet* one = instruction_sets();
  while (!one->works || skip-- > 0) one++;
  return *one;
}

template <class S>
const Kernels<S>& kernels_of(const InstructionSet& one) {
  if constexpr (std::is_same_v<S, float>) {
    return one.single;
  } else {
    return one.twice;
  }
}

// Makes the lists of the images unless the workspace has them, and calls, of as many images at a time as there are
// threads where they have rows and else of all of them, each image's tiles by the thread that begins with it,
// tile(image's number, image, its lists, its place, tile, scratch) for all of its tiles, between calls of
// around(first image, last image, their lists, whether all tiles are done).
template <class S, class Tile, class Around>
void over_tiles(const Pool& pool, const Batch<S>& batch, const Borrowed<S>& borrowed, bool with_rows, size_t scratch,
                int32_t* needed, const Tile& tile, const Around& around) {
  constexpr int RUN = 4;  // tiles that a thread takes at once
  Workspace<S>& work = *borrowed;
  const bool made = borrowed.has_lists(), whole = kept_whole(batch);
  const int together = whole && !with_rows ? batch.images : std::min(batch.images, pool.threads);
  scratch = (scratch + 63) / 64 * 64;
  work.scratch.resize(scratch * pool.threads + 64);
  S* const aligned = reinterpret_cast<S*>((reinterpret_cast<uintptr_t>(work.scratch.data()) + 63) & ~uintptr_t(63));
  const int listed = whole ? batch.images : together;  // images whose lists are there at the same time
  if (!made) work.origin.forget();
  if (int(work.lists.size()) < listed) work.lists.resize(listed);
  std::vector<Image<S>> images;
  for (int i = 0; i < batch.images; i++) images.push_back(batch.image(i));
  for (int first = 0; first < batch.images; first += together) {
    const int last = std::min(first + together, batch.images);
    Lists<S>* const lists = work.lists.data() + (whole ? first : 0);
    if (!made && first % listed == 0) {
      const int count = std::min(listed, batch.images - first);
      make_lists(pool, images.data() + first, lists, count, batch.capacity), lists_made += count;
    }
    for (int i = first; i < last; i++) {
      needed[i] = int32_t(std::min<int64_t>(lists[i - first].needed, std::numeric_limits<int32_t>::max()));
    }
    const int tiles = images[0].across() * images[0].down(), runs = (tiles + RUN - 1) / RUN;
    around(first, last, lists, false);
    parallel(pool, last - first, runs, [&](int k, int run, int worker) {
      const int begin = run * RUN;
      for (int t = begin; t < std::min(begin + RUN, tiles); t++) {
        tile(first + k, images[first + k], lists[k], k, t, aligned + worker * scratch);
      }
    });
    around(first, last, lists, true);
  }
  if (whole && !made) work.origin.remember(batch, pool);
}

// One image's part of what all of them show.
template <class S>
Shown<S> shown_by(const Shown<S>& all, int64_t i, int64_t pixels, int channels) {
  return {all.channels + i * pixels * channels, all.depth + i * pixels, all.alpha + i * pixels};
}

// Of images that need more than the capacity everything is NaN, also the gradients: zeros would look like a minimum.
template <class S>
constexpr S NOTHING = std::numeric_limits<S>::quiet_NaN();

template <class S>
void blend_forward(const Pool& pool, const Kernels<S>& kernels, const Batch<S>& batch, const Shown<S>& out,
                   int32_t* needed) {
  Borrowed<S> borrowed(batch, pool);
  const int64_t pixels = batch.pixels();
  auto tile = [&](int i, const Image<S>& image, const Lists<S>& lists, int, int t, S* scratch) {
    kernels.forward(image, lists, t, shown_by(out, i, pixels, batch.channels), scratch);
  };
  auto around = [&](int first, int last, const Lists<S>* lists, bool done) {
    for (int i = first; i < last; i++) {
      if (!done || !lists[i - first].over) continue;
      const Shown<S> own = shown_by(out, i, pixels, batch.channels);
      std::fill_n(own.channels, pixels * batch.channels, NOTHING<S>);
      std::fill_n(own.depth, pixels, NOTHING<S>), std::fill_n(own.alpha, pixels, NOTHING<S>);
    }
  };
  over_tiles(pool, batch, borrowed, false, kernels.forward_scratch(batch.channels), needed, tile, around);
}

// Sums the rows of each Gaussian's hits in the order of its run, whoever computed them, and calls
// put(image's number, Gaussian, sum or nullptr). One set of features after the other, its images in their order.
template <class S, class Put>
void sum_rows(const Pool& pool, const Batch<S>& batch, const Workspace<S>& work, const Lists<S>* all_lists, int first,
              int last, int width, const Put& put) {
  const int parts = std::max(1, std::min(4 * pool.threads, batch.count / 64));
  std::vector<std::vector<int>> of_set;  // images that add to the same sums, in their order
  for (int i = first; i < last; i++) {
    auto same = [&](const auto& images) { return batch.features && batch.set_ids[images[0]] == batch.set_ids[i]; };
    auto found = std::find_if(of_set.begin(), of_set.end(), same);
    if (found == of_set.end()) found = of_set.emplace(found);
    found->push_back(i);
  }
  parallel(pool, int(of_set.size()), parts, [&](int set, int part, int) {
    std::vector<S> sum(width);
    const int begin = int64_t(batch.count) * part / parts, end = int64_t(batch.count) * (part + 1) / parts;
    for (int i : of_set[set]) {
      const Lists<S>& lists = all_lists[i - first];
      const S* rows = work.of_image[i - first].rows.data();
      const uint8_t* touched = work.of_image[i - first].touched.data();
      for (int g = begin; g < end; g++) {
        const S* only = nullptr;
        int found = 0;
        for (int64_t hit = lists.run[g], stop = hit + lists.run_length[g]; hit < stop; hit++) {
          if (!touched[hit]) continue;
          const S* row = rows + hit * width;
          if (++found == 1) {
            only = row;
          } else {
            if (found == 2) std::copy_n(only, width, sum.begin()), only = sum.data();
            for (int c = 0; c < width; c++) sum[c] += row[c];
          }
        }
        put(i, g, only);
      }
    }
  });
}

template <class S>
void make_room(Workspace<S>& work, const Lists<S>* lists, int count, int width) {
  if (int(work.of_image.size()) < count) work.of_image.resize(count);
  for (int k = 0; k < count; k++) {
    const int64_t slots = lists[k].slot_count;
    work.of_image[k].rows.resize(slots * width), work.of_image[k].touched.resize(slots);
  }
}

template <class S>
struct Gradients {  // of means, roots, opacities and depths `i n ...`, and of features `f n c`
  S *means, *roots, *opacities, *depths, *features;
};

// shown, grad: what the images show and the gradient of the loss with respect to it.
template <class S>
void blend_backward(const Pool& pool, const Kernels<S>& kernels, const Batch<S>& batch, int shaping,
                    const Shown<const S>& shown, const Shown<const S>& grad, const Gradients<S>& out) {
  Borrowed<S> borrowed(batch, pool);
  Workspace<S>& work = *borrowed;
  const int channels = batch.channels, width = kernels.hit_width(channels), shape = kernels.sums_width(channels + 1);
  const int64_t pixels = batch.pixels();
  std::vector<int32_t> needed(batch.images);
  std::vector<bool> begun(batch.sets, false);
  auto tile = [&](int i, const Image<S>& image, const Lists<S>& lists, int k, int t, S* scratch) {
    kernels.backward(image, lists, t, shaping, shown_by(shown, i, pixels, channels), shown_by(grad, i, pixels, channels),
                     work.of_image[k].rows.data(), work.of_image[k].touched.data(), scratch);
  };
  auto around = [&](int first, int last, const Lists<S>* lists, bool done) {
    if (!done) return make_room(work, lists, last - first, width);
    std::vector<char> is_first(last - first);
    for (int i = first; i < last; i++) {
      is_first[i - first] = !begun[batch.set_ids[i]], begun[batch.set_ids[i]] = true;
    }
    sum_rows(pool, batch, work, lists, first, last, width, [&](int i, int g, const S* sum) {
      const int64_t at = int64_t(i) * batch.count + g;
      S* features = out.features + (int64_t(batch.set_ids[i]) * batch.count + g) * channels;
      if (is_first[i - first]) std::fill_n(features, channels, S(0));
      if (sum == nullptr) {
        const bool over = lists[i - first].over;
        const S none = over ? NOTHING<S> : S(0);
        std::fill_n(out.means + 2 * at, 2, none), std::fill_n(out.roots + 3 * at, 3, none);
        out.opacities[at] = out.depths[at] = none;
        if (over) std::fill_n(features, channels, none);
        return;
      }
      for (int c = 0; c < channels; c++) features[c] += sum[c];
      out.depths[at] = sum[channels];
      std::copy_n(sum + shape, 2, out.means + 2 * at), std::copy_n(sum + shape + 2, 3, out.roots + 3 * at);
      out.opacities[at] = sum[shape + 5];
    });
  };
  over_tiles(pool, batch, borrowed, true, kernels.backward_scratch(channels), needed.data(), tile, around);
  for (int f = 0; f < batch.sets; f++) {  // no image shows it
    const int64_t size = int64_t(batch.count) * channels;
    if (!begun[f]) std::fill_n(out.features + f * size, size, S(0));
  }
}

// Of each Gaussian of each image the sum over pixels of its weight times the picture `i h w c`.
template <class S>
void splat_sums(const Pool& pool, const Kernels<S>& kernels, const Batch<S>& batch, const S* pictures, S* out,
                int32_t* needed) {
  Borrowed<S> borrowed(batch, pool);
  Workspace<S>& work = *borrowed;
  const int channels = batch.channels, width = kernels.sums_width(channels);
  auto tile = [&](int i, const Image<S>& image, const Lists<S>& lists, int k, int t, S* scratch) {
    kernels.sums(image, lists, t, pictures + i * batch.pixels() * channels, work.of_image[k].rows.data(),
                 work.of_image[k].touched.data(), scratch);
  };
  auto around = [&](int first, int last, const Lists<S>* lists, bool done) {
    if (!done) return make_room(work, lists, last - first, width);
    sum_rows(pool, batch, work, lists, first, last, width, [&](int i, int g, const S* sum) {
      S* row = out + (int64_t(i) * batch.count + g) * channels;
      if (sum == nullptr) {
        std::fill_n(row, channels, lists[i - first].over ? NOTHING<S> : S(0));
      } else {
        std::copy_n(sum, channels, row);
      }
    });
  };
  over_tiles(pool, batch, borrowed, true, kernels.sums_scratch(channels), needed, tile, around);
}

}  // namespace jsplat
