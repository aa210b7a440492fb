// What a call works in, kept for the next one: memory, and the lists of tiles for a backward pass of the same Gaussians.
#pragma once
#include <atomic>
#include <cstddef>

#include "lists.h"

namespace jsplat {

// A call's images, n Gaussians each, and the sets of features that they show.
template <class S>
struct Batch {
  const S *means, *roots, *opacities, *depths, *features;
  const int32_t* set_ids;
  int images, sets, count, channels, width, height;
  int64_t capacity;
  int64_t pixels() const { return int64_t(width) * height; }
  int64_t rows() const { return int64_t(images) * count; }
  Image<S> image(int i) const {
    const int64_t at = int64_t(i) * count;
    return {means + 2 * at, roots + 3 * at, opacities + at, depths + at,
            features ? features + int64_t(set_ids[i]) * count * channels : nullptr, count, channels, width, height};
  }
};

inline std::atomic<int64_t> lists_made{0};  // of how many images so far

// Of which Gaussians the lists of a workspace are, to the bit.
template <class S>
class Origin {
 public:
  bool is(const Batch<S>& batch, const Pool& pool) const {
    const bool alike = known_ && of_.images == batch.images && of_.count == batch.count && of_.width == batch.width &&
                       of_.height == batch.height && of_.capacity == batch.capacity;
    return alike && each(batch, pool, [](S* own, const S* other, size_t n) {
             return std::memcmp(own, other, n * sizeof(S)) == 0;
           });
  }
  void forget() { known_ = false; }
  void remember(const Batch<S>& batch, const Pool& pool) {
    own_.resize(COLUMNS * batch.rows());
    each(batch, pool, [](S* own, const S* other, size_t n) { return std::copy_n(other, n, own), true; });
    of_ = batch, known_ = true;
  }

 private:
  static constexpr int COLUMNS = 7;
  template <class Each>
  bool each(const Batch<S>& batch, const Pool& pool, const Each& with) const {
    std::atomic<bool> all{true};
    parallel(pool, batch.images, 1, [&](int i, int, int) {
      const Image<S> image = batch.image(i);
      const size_t n = batch.count;
      S* own = own_.data() + COLUMNS * n * i;
      if (!with(own, image.means, 2 * n) || !with(own + 2 * n, image.roots, 3 * n) ||
          !with(own + 5 * n, image.opacities, n) || !with(own + 6 * n, image.depths, n)) {
        all = false;
      }
    });
    return all;
  }
  bool known_ = false;
  Batch<S> of_{};  // its sizes
  Buffer<S> own_;
};

template <class S>
struct Workspace {
  struct OfImage {
    Buffer<S> rows;
    Buffer<uint8_t> touched;
  };
  std::vector<Lists<S>> lists;
  std::vector<OfImage> of_image;
  Buffer<S> scratch;
  Origin<S> origin;
};

// Whether the lists of all images of a call may be kept; else each group of images takes the place of the one before.
template <class S>
bool kept_whole(const Batch<S>& batch) {
  constexpr int64_t MOST = 128 << 20;  // bytes
  const int64_t of_gaussian = sizeof(Splat<S>) + sizeof(Box) + 28 + 7 * sizeof(S), of_hit = 3 * sizeof(int32_t);
  return batch.images <= MOST / (batch.count * of_gaussian + std::min(batch.capacity, MOST) * of_hit + 1);
}

// A workspace that nobody else uses, the one that knows the lists of these Gaussians if there is one.
template <class S>
class Borrowed {
 public:
  Borrowed(const Batch<S>& batch, const Pool& pool) {
    std::lock_guard<std::mutex> guard(mutex());
    auto is_of_batch = [&](const auto& one) { return one->origin.is(batch, pool); };
    auto found = std::find_if(kept().begin(), kept().end(), is_of_batch);
    has_lists_ = found != kept().end();
    if (!has_lists_ && !kept().empty()) found = kept().begin();  // the one that has lain longest
    if (found == kept().end()) {
      own_ = std::make_unique<Workspace<S>>();
    } else {
      own_ = std::move(*found), kept().erase(found);
    }
  }
  ~Borrowed() {
    std::lock_guard<std::mutex> guard(mutex());
    if (kept().size() < 4) kept().push_back(std::move(own_));
  }
  Workspace<S>& operator*() const { return *own_; }
  bool has_lists() const { return has_lists_; }  // of the Gaussians that it was borrowed for

 private:
  // Never destroyed: a thread of XLA's may still be at work when the process ends.
  static std::mutex& mutex() { return *new_once<std::mutex>(); }
  static std::vector<std::unique_ptr<Workspace<S>>>& kept() {
    return *new_once<std::vector<std::unique_ptr<Workspace<S>>>>();
  }
  template <class T>
  static T* new_once() {
    static T* one = new T;
    return one;
  }
  std::unique_ptr<Workspace<S>> own_;
  bool has_lists_;
};

}  // namespace jsplat
