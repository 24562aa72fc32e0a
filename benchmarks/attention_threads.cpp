// The threads that benchmarks/attention.py lends to the attention kernel, as an engine would.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace {

using Task = void (*)(void*, int64_t);

// Threads that wait for work, so that a call does not pay for starting them.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; i++) threads_.emplace_back([this] { serve(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      is_over_ = true;
      round_++;
    }
    begins_.notify_all();
    for (std::thread& each : threads_) each.join();
  }
  void run(int64_t tasks, Task task, void* argument) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_ = tasks, task_ = task, argument_ = argument, next_ = 0;
      busy_ = threads_.size();
      round_++;
    }
    begins_.notify_all();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    ends_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void work() {
    for (int64_t i; (i = next_++) < tasks_;) task_(argument_, i);
  }
  void serve() {
    for (uint64_t seen = 0;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        begins_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (is_over_) return;
      }
      work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) ends_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable begins_, ends_;
  std::atomic<int64_t> next_{0};
  int64_t tasks_ = 0;
  Task task_ = nullptr;
  void* argument_ = nullptr;
  size_t busy_ = 0;
  uint64_t round_ = 0;
  bool is_over_ = false;
};

}  // namespace

#define PUBLIC extern "C" __attribute__((visibility("default")))

PUBLIC void* open_pool(int threads) { return new Pool(threads); }
PUBLIC void close_pool(void* pool) { delete (Pool*)pool; }
// An fdd_parallel, whose context is a pool.
PUBLIC void run_in_pool(void* pool, int64_t tasks, Task task, void* argument) {
  ((Pool*)pool)->run(tasks, task, argument);
}
