// `blend` on processors, as XLA calls it through its foreign function interface.
#include "blend.h"

#include <new>
#include <thread>
#ifdef __linux__
#include <sched.h>
#endif

#include "xla/ffi/api/ffi.h"

#ifndef JSPLAT_SOURCE
#define JSPLAT_SOURCE "unknown"
#endif

namespace ffi = xla::ffi;

namespace jsplat {
namespace {

// XLA's own threads, as many of them as the process may use now; `most` of them, or 0 for all.
Pool pool_of(ffi::ThreadPool& threads, int64_t most) {
  int64_t count = std::max<int64_t>(threads.num_threads(), 1);
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) count = std::min<int64_t>(count, CPU_COUNT(&allowed));
#endif
  if (most > 0) count = std::min(count, most);
  return {int(count), [&threads](std::function<void()> task) { threads.Schedule(std::move(task)); }};
}

template <ffi::DataType type>
using Array = ffi::Buffer<type>;
using Ids = ffi::Buffer<ffi::DataType::S32>;

template <ffi::DataType type, class S = ffi::NativeType<type>>
Batch<S> batch_of(Array<type>& means, Array<type>& roots, Array<type>& opacities, Array<type>& depths, int64_t width,
                  int64_t height, int64_t capacity) {
  Batch<S> batch{};
  batch.means = means.typed_data(), batch.roots = roots.typed_data();
  batch.opacities = opacities.typed_data(), batch.depths = depths.typed_data();
  batch.images = int(opacities.dimensions()[0]), batch.count = int(opacities.dimensions()[1]);
  batch.width = int(width), batch.height = int(height), batch.capacity = capacity;
  return batch;
}

template <ffi::DataType type, class S = ffi::NativeType<type>>
void show(Batch<S>& batch, Array<type>& features, Ids& set_ids) {
  batch.features = features.typed_data(), batch.set_ids = set_ids.typed_data();
  batch.sets = int(features.dimensions()[0]), batch.channels = int(features.dimensions()[2]);
}

template <class S>
const Kernels<S>& kernels(int64_t skip) {
  return kernels_of<S>(instruction_set(int(skip)));
}

// A call that runs out of memory is an error of the program that called, not the end of the process.
template <class Work>
ffi::Error guarded(const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "blend: cpu: no memory left for the lists of tiles");
  }
  return ffi::Error::Success();
}

template <ffi::DataType type>
ffi::Error forward(ffi::ThreadPool threads, Array<type> means, Array<type> roots, Array<type> opacities,
                   Array<type> depths, Array<type> features, Ids set_ids, int64_t width, int64_t height,
                   int64_t capacity, int64_t most, int64_t skip, ffi::Result<Array<type>> channels,
                   ffi::Result<Array<type>> depth, ffi::Result<Array<type>> alpha, ffi::Result<Ids> needed) {
  using S = ffi::NativeType<type>;
  auto batch = batch_of<type>(means, roots, opacities, depths, width, height, capacity);
  show<type>(batch, features, set_ids);
  const Shown<S> out{channels->typed_data(), depth->typed_data(), alpha->typed_data()};
  return guarded([&] {
    blend_forward<S>(pool_of(threads, most), kernels<S>(skip), batch, out, needed->typed_data());
  });
}

template <ffi::DataType type>
ffi::Error backward(ffi::ThreadPool threads, Array<type> means, Array<type> roots, Array<type> opacities,
                    Array<type> depths, Array<type> features, Ids set_ids, Array<type> channels,
                    Array<type> depth, Array<type> alpha, Array<type> d_channels, Array<type> d_depth,
                    Array<type> d_alpha, int64_t width, int64_t height, int64_t capacity, int64_t shape_channels, int64_t most,
                    int64_t skip, ffi::Result<Array<type>> d_means, ffi::Result<Array<type>> d_roots,
                    ffi::Result<Array<type>> d_opacities, ffi::Result<Array<type>> d_depths,
                    ffi::Result<Array<type>> d_features) {
  using S = ffi::NativeType<type>;
  auto batch = batch_of<type>(means, roots, opacities, depths, width, height, capacity);
  show<type>(batch, features, set_ids);
  const Shown<const S> shown{channels.typed_data(), depth.typed_data(), alpha.typed_data()};
  const Shown<const S> grad{d_channels.typed_data(), d_depth.typed_data(), d_alpha.typed_data()};
  const Gradients<S> out{d_means->typed_data(), d_roots->typed_data(), d_opacities->typed_data(),
                         d_depths->typed_data(), d_features->typed_data()};
  return guarded([&] {
    blend_backward<S>(pool_of(threads, most), kernels<S>(skip), batch, int(shape_channels), shown, grad, out);
  });
}

template <ffi::DataType type>
ffi::Error sums(ffi::ThreadPool threads, Array<type> means, Array<type> roots, Array<type> opacities,
                Array<type> depths, Array<type> pictures, int64_t width, int64_t height, int64_t capacity,
                int64_t most, int64_t skip, ffi::Result<Array<type>> out, ffi::Result<Ids> needed) {
  using S = ffi::NativeType<type>;
  auto batch = batch_of<type>(means, roots, opacities, depths, width, height, capacity);
  batch.channels = int(pictures.dimensions()[3]);
  return guarded([&] {
    splat_sums<S>(pool_of(threads, most), kernels<S>(skip), batch, pictures.typed_data(), out->typed_data(),
                  needed->typed_data());
  });
}

}  // namespace
}  // namespace jsplat

#define BLEND_GAUSSIANS(type)                                                                                    \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::Buffer<type>>().Arg<ffi::Buffer<type>>().Arg<ffi::Buffer<type>>() \
      .Arg<ffi::Buffer<type>>().Arg<ffi::Buffer<type>>()
#define BLEND_SHOWN(type) Arg<ffi::Buffer<type>>().Arg<ffi::Buffer<type>>().Arg<ffi::Buffer<type>>()
#define BLEND_OUT(type) Ret<ffi::Buffer<type>>().Ret<ffi::Buffer<type>>().Ret<ffi::Buffer<type>>()
#define BLEND_SIZE Attr<int64_t>("width").Attr<int64_t>("height").Attr<int64_t>("capacity")
#define BLEND_HOW Attr<int64_t>("threads").Attr<int64_t>("skip")

#define BLEND_HANDLERS(name, type)                                                                                  \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(jsplat_forward_##name, jsplat::forward<type>,                                       \
                                BLEND_GAUSSIANS(type).Arg<jsplat::Ids>().BLEND_SIZE.BLEND_HOW.BLEND_OUT(type)       \
                                    .Ret<jsplat::Ids>());                                                           \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                                                    \
      jsplat_backward_##name, jsplat::backward<type>,                                                               \
      BLEND_GAUSSIANS(type).Arg<jsplat::Ids>().BLEND_SHOWN(type).BLEND_SHOWN(type).BLEND_SIZE                       \
          .Attr<int64_t>("shape_channels").BLEND_HOW.BLEND_OUT(type).Ret<ffi::Buffer<type>>()                       \
          .Ret<ffi::Buffer<type>>());                                                                               \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(jsplat_splat_sums_##name, jsplat::sums<type>,                                       \
                                BLEND_GAUSSIANS(type).BLEND_SIZE.BLEND_HOW.Ret<ffi::Buffer<type>>().Ret<jsplat::Ids>())

#pragma GCC visibility push(default)
BLEND_HANDLERS(float32, ffi::DataType::F32);
BLEND_HANDLERS(float64, ffi::DataType::F64);

// What the library was built from, the instruction sets that this processor has, and for tests how much work was done.
extern "C" const char* jsplat_source() { return JSPLAT_SOURCE; }
extern "C" int64_t jsplat_lists_made() { return jsplat::lists_made; }
extern "C" const char* jsplat_instruction_set() { return jsplat::instruction_set().name; }
#pragma GCC visibility pop
