// Runs the kernels for processors under a sanitizer: reads cases from a file, blends each on some threads and on every
// instruction set that this processor has, and fails where a bit depends on the number of threads.
#include <cstdio>
#include <fstream>
#include <thread>

#include "blend.h"

namespace {

using namespace jsplat;

template <class S>
std::vector<S> numbers(std::ifstream& file, int64_t count) {
  std::vector<double> read(count);
  file.read(reinterpret_cast<char*>(read.data()), count * sizeof(double));
  return std::vector<S>(read.begin(), read.end());
}

template <class S>
std::vector<S> run(const Pool& pool, const Kernels<S>& kernels, const Batch<S>& batch) {
  const int64_t pixels = batch.pixels() * batch.images, image = pixels * (batch.channels + 2);
  const int64_t rows = int64_t(batch.images) * batch.count;
  std::vector<S> shown(image), grad(image), pictures(batch.pixels() * batch.channels * batch.images);
  std::vector<int32_t> needed(batch.images);
  for (int64_t k = 0; k < image; k++) grad[k] = S(k % 17) - 8;
  for (size_t k = 0; k < pictures.size(); k++) pictures[k] = S(k % 13) / 13;
  auto parts = [&](auto* all) {  // channels, depth, alpha
    auto *depth = all + pixels * batch.channels, *alpha = depth + pixels;
    return Shown<std::remove_pointer_t<decltype(all)>>{all, depth, alpha};
  };
  const S *const was_shown = shown.data(), *const slopes = grad.data();
  blend_forward(pool, kernels, batch, parts(shown.data()), needed.data());
  std::vector<S> means(2 * rows), roots(3 * rows), opacities(rows), depths(rows), sums(rows * batch.channels);
  std::vector<S> features(int64_t(batch.sets) * batch.count * batch.channels);
  const Gradients<S> out{means.data(), roots.data(), opacities.data(), depths.data(), features.data()};
  blend_backward(pool, kernels, batch, batch.channels / 2, parts(was_shown), parts(slopes), out);
  splat_sums(pool, kernels, batch, pictures.data(), sums.data(), needed.data());
  for (auto* one : {&means, &roots, &opacities, &depths, &features, &sums}) {
    shown.insert(shown.end(), one->begin(), one->end());
  }
  return shown;
}

template <class S>
int check(std::ifstream& file, const int32_t* sizes) {
  const int images = sizes[0], sets = sizes[1], count = sizes[2], channels = sizes[3];
  const int64_t rows = int64_t(images) * count;
  const auto means = numbers<S>(file, 2 * rows), roots = numbers<S>(file, 3 * rows), opacities = numbers<S>(file, rows),
             depths = numbers<S>(file, rows), features = numbers<S>(file, int64_t(sets) * count * channels);
  std::vector<int32_t> set_ids(images);
  for (int i = 0; i < images; i++) set_ids[i] = i % sets;
  const Batch<S> batch{means.data(), roots.data(), opacities.data(), depths.data(), features.data(), set_ids.data(),
                       images, sets, count, channels, sizes[4], sizes[5], 1 << 20};
  int failures = 0;
  for (int skip = 0;; skip++) {
    const InstructionSet& one = instruction_set(skip);
    const auto alone = run(Pool{}, kernels_of<S>(one), batch);
    std::vector<std::thread> threads;
    const Pool pool{3, [&](std::function<void()> task) { threads.emplace_back(std::move(task)); }};
    const auto shared = run(pool, kernels_of<S>(one), batch);
    for (auto& thread : threads) thread.join();
    if (std::memcmp(alone.data(), shared.data(), alone.size() * sizeof(S))) {
      std::printf("%s: other bits on three threads\n", one.name), failures++;
    }
    if (one.name == std::string("baseline")) return failures;
  }
}

// Whether what a task throws reaches the caller, whichever thread it was on, after all other tasks were done.
int check_throwing(int count) {
  std::vector<std::thread> threads;
  const Pool pool{count, [&](std::function<void()> task) { threads.emplace_back(std::move(task)); }};
  std::atomic<int> done{0};
  bool thrown = false;
  try {
    parallel(pool, 1, 8, [&](int, int task, int) {
      if (task % 4 == 3) throw std::bad_alloc();
      done++;
    });
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  for (auto& thread : threads) thread.join();
  const bool right = thrown && (count == 1 || done == 6);
  if (!right) std::printf("%d threads: a task's exception was lost\n", count);
  return !right;
}

}  // namespace

// Each case: images, sets, Gaussians, channels, width, height as int32, then its arrays as float64.
int main(int, char** argv) {
  std::ifstream file(argv[1], std::ios::binary);
  int32_t sizes[6];
  int failures = check_throwing(1) + check_throwing(3), cases = 0;
  while (file.read(reinterpret_cast<char*>(sizes), sizeof sizes)) {
    const auto at = file.tellg();
    failures += check<float>(file, sizes);
    file.seekg(at);
    failures += check<double>(file, sizes);
    cases++;
  }
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures || !cases;
}
