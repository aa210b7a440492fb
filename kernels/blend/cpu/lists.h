// Which Gaussian reaches which tile, nearest first: what kernels/tiling computes, in lists as long as they have to be.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace jsplat {

constexpr double FLOOR = 1.0 / 255, CEILING = 0.999, STOP = 1e-4;  // kernels/constants.py
constexpr double LOG2E = 1.4426950408889634;
constexpr int TILE = 8;           // pixels across and down
constexpr double ROUNDING = 5e-7; // as in kernels/tiling: dropping must never be a matter of it

// Memory that is neither cleared nor given back between calls: fresh pages would cost more than what is done on them.
template <class T>
class Buffer {
 public:
  T* resize(size_t count) {
    if (count > capacity_) {
      const size_t more = count + count / 4;
      data_.reset();  // the old one first, so that both are never held
      capacity_ = 0;  // where no memory is left, nothing is
      data_.reset(new T[more]), capacity_ = more;
    }
    return data_.get();
  }
  T* data() const { return data_.get(); }
  T& operator[](size_t k) const { return data_[k]; }
  size_t bytes() const { return capacity_ * sizeof(T); }

 private:
  std::unique_ptr<T[]> data_;
  size_t capacity_ = 0;
};

template <class S>
struct Image {  // one image's Gaussians, and the features that it shows
  const S *means, *roots, *opacities, *depths, *features;
  int count, channels, width, height;
  int across() const { return (width + TILE - 1) / TILE; }
  int down() const { return (height + TILE - 1) / TILE; }
};

// What images show, or the gradients of that: pixel by pixel, images one after the other.
template <class S>
struct Shown {
  S *channels, *depth, *alpha;
};

// What is read of a Gaussian for each of its hits. The roots carry a factor: alpha = opacity * 2^-(p^2 + q^2).
template <class S>
struct Splat {
  S x, y, u, v, w, opacity, depth, limit;
};

struct Box {
  int32_t left, top, right, bottom;  // tiles, the last ones excluded
  bool empty() const { return right <= left || bottom <= top; }
};

template <class S>
struct Lists {
  Buffer<Splat<S>> splats;
  Buffer<Box> boxes;
  Buffer<uint64_t> keys, spare;  // depth and number of each Gaussian that is listed
  Buffer<int32_t> order;         // of the Gaussians that are listed, from near to far
  Buffer<int32_t> tile_of;       // of each hit, Gaussian by Gaussian: a Gaussian's hits are a run
  Buffer<int32_t> run;           // where each Gaussian's run begins
  Buffer<int32_t> run_length;
  Buffer<int32_t> parts;  // hits of each part of the order in each tile, then where these begin
  Buffer<int32_t> starts, ids, slots;  // of each tile; of each hit in it the Gaussian, and its place in the runs
  std::vector<int64_t> of_part, needed_of_part;
  int64_t needed = 0, slot_count = 0;  // tiles of all boxes; places that the runs may have
  int listed = 0;
  bool over = false;
};

// The box of tiles around the ellipse on which alpha is at the floor.
template <class S>
void find_boxes(const Image<S>& image, Lists<S>& lists, int begin, int end, int part) {
  const S scale = std::sqrt(S(0.5 * LOG2E));
  int64_t needed = 0;
  for (int i = begin; i < end; i++) {
    const S x = image.means[2 * i], y = image.means[2 * i + 1], opacity = image.opacities[i], depth = image.depths[i];
    const S u = image.roots[3 * i], v = image.roots[3 * i + 1], w = image.roots[3 * i + 2];
    Box box{0, 0, 0, 0};
    lists.splats[i] = {x, y, scale * u, scale * v, scale * w, opacity, depth, 0};
    // x - x is 0 for finite numbers alone; comparisons with NaN are false.
    const S zero = (x - x) + (y - y) + (u - u) + (v - v) + (w - w) + (depth - depth) + (opacity - opacity);
    if (opacity > S(FLOOR) && u > 0 && w > 0 && zero == 0) {
      const S limit = std::log(opacity / S(FLOOR)), reach = std::sqrt(2 * limit) * S(1 + 4 * ROUNDING);
      const S radius_y = reach / w, slope = v / w, radius_x = reach * std::sqrt(1 + slope * slope) / u;
      auto tiles = [](S edge, int most) { return int(std::min(std::max(std::floor(edge), S(0)), S(most))); };
      box.left = tiles((x - radius_x - S(0.5)) / TILE, image.across());
      box.right = tiles((x + radius_x - S(0.5)) / TILE + 1, image.across());
      box.top = tiles((y - radius_y - S(0.5)) / TILE, image.down());
      box.bottom = tiles((y + radius_y - S(0.5)) / TILE + 1, image.down());
      lists.splats[i].limit = (limit * S(1.0001) + S(1e-4)) * S(LOG2E);
    }
    if (box.empty()) box = {0, 0, 0, 0};
    lists.boxes[i] = box;
    needed += int64_t(box.right - box.left) * (box.bottom - box.top);
  }
  lists.needed_of_part[part] = needed;
}

// Numbers that are ordered as the depths are.
inline uint64_t ordered(float depth) {
  depth += 0.0f;  // -0 is 0
  uint32_t bits;
  std::memcpy(&bits, &depth, sizeof bits);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// From near to far, ties in the order of the arrays.
inline void sort_by_depth(const Image<float>& image, Lists<float>& lists) {
  uint64_t *from = lists.keys.resize(image.count), *to = lists.spare.resize(image.count);
  constexpr int BITS = 11, COUNTS = 1 << BITS;
  static_assert(3 * BITS >= 32);
  uint32_t counts[3][COUNTS] = {};
  int listed = 0;
  for (int i = 0; i < image.count; i++) {
    if (lists.boxes[i].empty()) continue;
    const uint64_t key = ordered(image.depths[i]);
    for (int pass = 0; pass < 3; pass++) counts[pass][key >> (pass * BITS) & (COUNTS - 1)]++;
    from[listed++] = key << 32 | uint32_t(i);
  }
  for (int pass = 0; pass < 3; pass++) {
    uint32_t begin = 0;
    for (auto& count : counts[pass]) {
      const uint32_t own = count;
      count = begin, begin += own;
    }
    for (int k = 0; k < listed; k++) to[counts[pass][from[k] >> (32 + pass * BITS) & (COUNTS - 1)]++] = from[k];
    std::swap(from, to);
  }
  int32_t* order = lists.order.resize(image.count);
  for (int k = 0; k < listed; k++) order[k] = int32_t(from[k]);
  lists.listed = listed;
}

inline void sort_by_depth(const Image<double>& image, Lists<double>& lists) {
  int32_t* order = lists.order.resize(image.count);
  int listed = 0;
  for (int i = 0; i < image.count; i++) {
    if (!lists.boxes[i].empty()) order[listed++] = i;
  }
  std::stable_sort(order, order + listed, [&](int a, int b) { return image.depths[a] < image.depths[b]; });
  lists.listed = listed;
}

// Whether the ellipse of a Gaussian reaches a rectangle of pixel centres: the least power over it is within the limit.
// Everything relative to the mean.
template <class S>
inline bool reaches(const Splat<S>& splat, S left, S top, S right, S bottom, S ratio_x, S ratio_y) {
  auto clamp = [](S x, S low, S high) { return std::min(std::max(x, low), high); };
  const S x = clamp(0, left, right), y = clamp(0, top, bottom);
  // The least of a convex form over a box lies on the facing vertical or horizontal side.
  const S other_y = clamp(-ratio_y * x, top, bottom), other_x = clamp(-ratio_x * y, left, right);
  auto power = [&](S x, S y) {
    const S ux = splat.u * x, vy = splat.v * y, down = splat.w * y;
    const S across = std::max(std::abs(ux + vy) - S(ROUNDING) * (std::abs(ux) + std::abs(vy)), S(0));
    return across * across + down * down;
  };
  return std::min(power(x, other_y), power(other_x, y)) <= splat.limit;
}

// The tiles that each Gaussian of a part of the order hits, as runs that begin at `first`.
template <class S>
void find_hits(const Image<S>& image, Lists<S>& lists, int begin, int end, int part) {
  const int across = image.across(), tiles = across * image.down();
  int32_t* counts = lists.parts.data() + int64_t(part) * tiles;
  std::fill(counts, counts + tiles, 0);
  const int64_t first = lists.of_part[part];
  int64_t at = first;
  for (int k = begin; k < end; k++) {
    const int i = lists.order[k];
    const Splat<S>& splat = lists.splats[i];
    const Box box = lists.boxes[i];
    const S ratio_x = splat.v / splat.u, ratio_y = splat.u * splat.v / (splat.v * splat.v + splat.w * splat.w);
    lists.run[i] = at;
    for (int ty = box.top; ty < box.bottom; ty++) {
      const S top = ty * TILE + S(0.5) - splat.y;
      for (int tx = box.left; tx < box.right; tx++) {
        const S left = tx * TILE + S(0.5) - splat.x;
        const int tile = ty * across + tx;
        const bool hit = reaches(splat, left, top, left + (TILE - 1), top + (TILE - 1), ratio_x, ratio_y);
        lists.tile_of[at] = tile;
        counts[tile] += hit, at += hit;
      }
    }
    lists.run_length[i] = at - lists.run[i];
  }
}

template <class S>
void find_starts(const Image<S>& image, Lists<S>& lists, int parts) {
  const int tiles = image.across() * image.down();
  int32_t begin = 0;
  for (int tile = 0; tile < tiles; tile++) {
    lists.starts[tile] = begin;
    for (int part = 0; part < parts; part++) {
      int32_t& count = lists.parts[int64_t(part) * tiles + tile];
      const int32_t own = count;
      count = begin, begin += own;
    }
  }
  lists.starts[tiles] = begin;
  lists.ids.resize(begin), lists.slots.resize(begin);
}

template <class S>
void place_hits(const Image<S>& image, Lists<S>& lists, int begin, int end, int part) {
  int32_t* at = lists.parts.data() + int64_t(part) * image.across() * image.down();
  for (int k = begin; k < end; k++) {
    const int i = lists.order[k];
    for (int32_t hit = lists.run[i], stop = hit + lists.run_length[i]; hit < stop; hit++) {
      const int32_t place = at[lists.tile_of[hit]]++;
      lists.ids[place] = i, lists.slots[place] = hit;
    }
  }
}

// The lists of some images at once; each Gaussian's part in them does not depend on the number of parts.
template <class S>
void make_lists(const Pool& pool, const Image<S>* images, Lists<S>* lists, int count, int64_t capacity) {
  const int parts = pool.threads <= count ? 1 : (pool.threads + count - 1) / count;
  // step(image, lists, first, end, part) of a part of all Gaussians, or of those that are listed.
  auto of_part = [&](int k, int part, bool of_order, auto step) {
    const int64_t all = of_order ? lists[k].listed : images[k].count;
    step(images[k], lists[k], int(all * part / parts), int(all * (part + 1) / parts), part);
  };
  auto each_part = [&](bool of_order, auto step) {
    parallel(pool, count, parts, [&](int k, int part, int) { of_part(k, part, of_order, step); });
  };
  auto make_room = [&](int k) {
    lists[k].splats.resize(images[k].count), lists[k].boxes.resize(images[k].count);
    lists[k].run.resize(images[k].count), lists[k].run_length.resize(images[k].count);
    lists[k].parts.resize(int64_t(parts) * images[k].across() * images[k].down());
    lists[k].starts.resize(int64_t(images[k].across()) * images[k].down() + 1);
    lists[k].of_part.assign(parts + 1, 0), lists[k].needed_of_part.assign(parts, 0);
  };
  auto sort = [&](int k) {
    lists[k].needed = 0;
    for (int64_t part : lists[k].needed_of_part) lists[k].needed += part;
    lists[k].over = lists[k].needed > capacity;
    lists[k].listed = 0, lists[k].slot_count = 0;
    std::fill_n(lists[k].run_length.data(), images[k].count, 0);
    if (lists[k].over) return;
    sort_by_depth(images[k], lists[k]);
    int64_t begin = 0;  // a part's runs begin where they must even if all tiles of the boxes before it are hit
    for (int part = 0; part < parts; part++) {
      lists[k].of_part[part] = begin;
      const int64_t all = lists[k].listed;
      for (int64_t j = all * part / parts; j < all * (part + 1) / parts; j++) {
        const Box box = lists[k].boxes[lists[k].order[j]];
        begin += int64_t(box.right - box.left) * (box.bottom - box.top);
      }
    }
    lists[k].slot_count = begin;
    lists[k].tile_of.resize(begin);
  };
  if (parts == 1) {  // no thread waits for another between the steps
    parallel(pool, count, 1, [&](int k, int, int) {
      make_room(k), of_part(k, 0, false, find_boxes<S>), sort(k), of_part(k, 0, true, find_hits<S>);
      find_starts(images[k], lists[k], parts), of_part(k, 0, true, place_hits<S>);
    });
    return;
  }
  for (int k = 0; k < count; k++) make_room(k);
  each_part(false, find_boxes<S>);
  parallel(pool, count, 1, [&](int k, int, int) { sort(k); });
  each_part(true, find_hits<S>);
  parallel(pool, count, 1, [&](int k, int, int) { find_starts(images[k], lists[k], parts); });
  each_part(true, place_hits<S>);
}

}  // namespace jsplat
