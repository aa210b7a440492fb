// Tasks that threads of somebody else's pool share with the thread that asks.
#pragma once
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace jsplat {

// Where helpers come from: XLA's own pool, or in the test harness plain threads.
struct Pool {
  int threads = 1;  // that may work at the same time, the caller's among them
  std::function<void(std::function<void()>)> schedule;
};

// Calls work(queue, task, worker) once for each task of each queue and returns when all are done; worker is below
// pool.threads.
//
// Whoever is free takes the next task: each worker begins at queues of its own, so that what lies together stays in one
// core's cache, and helps with the others' when its own are empty. The caller takes tasks as well, and waits for those
// that others have begun: a helper that comes late finds nothing to do, so that a busy pool delays nobody and none waits
// for itself. What a task throws is thrown again here once all are done; the first one, where several do.
inline void parallel(const Pool& pool, int queues, int length, const std::function<void(int, int, int)>& work) {
  const int tasks = queues * length, helpers = std::min(pool.threads, tasks) - 1;
  if (helpers < 1) {
    for (int task = 0; task < tasks; task++) work(task / length, task % length, 0);
    return;
  }
  struct State {
    explicit State(int queues) : next(queues) {}
    std::vector<std::atomic<int>> next;  // of each queue
    std::atomic<int> worker{1};
    std::mutex mutex;
    std::condition_variable all_done;
    int done = 0, tasks, length, workers;
    std::exception_ptr thrown;
    const std::function<void(int, int, int)>* work;  // alive as long as a task is left
  };
  auto state = std::make_shared<State>(queues);
  state->tasks = tasks, state->length = length, state->workers = helpers + 1, state->work = &work;
  auto take = [](State& state, int worker) {
    int mine = 0;
    std::exception_ptr thrown;
    const int queues = int(state.next.size());
    for (int k = 0; k < queues; k++) {
      const int queue = (int64_t(worker) * queues / state.workers + k) % queues;
      for (int task; (task = state.next[queue].fetch_add(1)) < state.length; mine++) try {
          (*state.work)(queue, task, worker);
        } catch (...) {
          thrown = std::current_exception();
        }
    }
    if (mine == 0) return;
    std::lock_guard<std::mutex> guard(state.mutex);
    if (thrown && !state.thrown) state.thrown = thrown;
    if ((state.done += mine) == state.tasks) state.all_done.notify_all();
  };
  for (int k = 0; k < helpers; k++) pool.schedule([state, take] { take(*state, state->worker.fetch_add(1)); });
  take(*state, 0);
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == state->tasks; });
  if (state->thrown) std::rethrow_exception(state->thrown);
}

}  // namespace jsplat
