// The kernels' own threads: started when first needed, asleep between calls, shared by all callers.
//
//   pool::run(threads, tasks, [&](int64_t task) { ... });
//
// calls the function once for every task in [0, tasks), on at most `threads` threads, the caller
// being one of them, and returns when all are done. Callers on several threads are served side by
// side: whoever is idle helps, and a caller that gets no help does its tasks itself, so no call
// waits for another one. `threads` comes with every call (torch.get_num_threads), so a later
// torch.set_num_threads is respected. An exception in a task is thrown again in the caller.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace pool {

class Pool {
 public:
  // A forked child has none of its parent's threads, so it starts a pool of its own; the parent's
  // copy is left alone, for its locks may be held by threads that no longer exist.
  static Pool& get() {
    static std::atomic<Pool*> current{nullptr};
    Pool* pool = current.load(std::memory_order_acquire);
    while (!pool || pool->owner_ != getpid()) {
      auto fresh = std::make_unique<Pool>();
      if (current.compare_exchange_strong(pool, fresh.get())) pool = fresh.release();
    }
    return *pool;
  }

  void run(int64_t threads, int64_t tasks, const std::function<void(int64_t)>& work) {
    const int64_t helpers = std::min(threads, tasks) - 1;
    if (helpers < 1) {
      for (int64_t task = 0; task < tasks; ++task) work(task);
      return;
    }
    const auto job = std::make_shared<Job>(work, tasks);
    offer(job, helpers);
    job->take_part();
    withdraw(job);
    std::unique_lock<std::mutex> lock(job->mutex);
    job->finished.wait(lock, [&] { return job->inside == 0; });
    if (job->failure) std::rethrow_exception(job->failure);
  }

 private:
  struct Job {
    const std::function<void(int64_t)>& work;  // lives as long as the caller waits
    const int64_t tasks;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable finished;
    int64_t inside = 0;  // helpers that are at it
    std::exception_ptr failure;
    Job(const std::function<void(int64_t)>& w, int64_t n) : work(w), tasks(n) {}

    void take_part() {
      try {
        for (int64_t task; (task = next.fetch_add(1)) < tasks;) work(task);
      } catch (...) {
        next = tasks;  // nobody begins another one
        const std::lock_guard<std::mutex> lock(mutex);
        failure = std::current_exception();
      }
    }
    void leave() {
      const std::lock_guard<std::mutex> lock(mutex);
      if (--inside == 0) finished.notify_all();
    }
  };

  // A place in the queue is an invitation to one helper.
  void offer(const std::shared_ptr<Job>& job, int64_t helpers) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (int64_t i = 0; i < helpers; ++i) queue_.push_back(job);
      const int64_t wanted = static_cast<int64_t>(queue_.size());
      for (; idle_ + starting_ < wanted && started_ < MOST; ++started_, ++starting_)
        if (!start()) break;
    }
    if (helpers == 1) awake_.notify_one();
    else awake_.notify_all();
  }

  bool start() {
    try {
      std::thread([this] { serve(); }).detach();
      return true;
    } catch (const std::exception&) {  // no more threads to be had: those that are must do
      return false;
    }
  }

  void withdraw(const std::shared_ptr<Job>& job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.erase(std::remove(queue_.begin(), queue_.end(), job), queue_.end());
  }

  [[noreturn]] void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    --starting_;
    for (;;) {
      ++idle_;
      awake_.wait(lock, [&] { return !queue_.empty(); });
      --idle_;
      const std::shared_ptr<Job> job = queue_.front();
      queue_.pop_front();
      {
        // Taken under the pool's lock, so the caller, who withdraws under it too, sees this helper.
        const std::lock_guard<std::mutex> inside(job->mutex);
        ++job->inside;
      }
      lock.unlock();
      job->take_part();
      job->leave();
      lock.lock();
    }
  }

  static constexpr int64_t MOST = 256;
  const pid_t owner_ = getpid();
  std::mutex mutex_;
  std::condition_variable awake_;
  std::deque<std::shared_ptr<Job>> queue_;
  int64_t idle_ = 0, starting_ = 0, started_ = 0;
};

template <class Work>
void run(int64_t threads, int64_t tasks, Work work) {
  Pool::get().run(threads, tasks, work);
}

}  // namespace pool
