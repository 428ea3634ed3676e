#include "executor.h"

namespace mae {

Executor::Executor(std::shared_ptr<Device> device) : device_(std::move(device)), thread_([this] { loop(); }) {}

Executor::~Executor() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Executor::submit(std::function<void(Device&)> enqueue, std::function<void(std::exception_ptr)> done) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back({std::move(enqueue), std::move(done)});
  }
  wake_.notify_one();
}

void Executor::run_now(const std::function<void(Device&)>& body) {
  std::mutex mutex;
  std::condition_variable finished;
  bool is_done = false;
  std::exception_ptr failure;
  submit([&](Device& device) { body(device); },
         [&](std::exception_ptr error) {
           std::lock_guard<std::mutex> lock(mutex);
           failure = error;
           is_done = true;
           finished.notify_one();
         });
  std::unique_lock<std::mutex> lock(mutex);
  finished.wait(lock, [&] { return is_done; });
  if (failure) std::rethrow_exception(failure);
}

void Executor::finish_oldest() {
  Pending job = std::move(pending_.front());
  pending_.pop_front();
  if (!job.failure) {
    try {
      device_->wait(job.mark);
    } catch (...) {
      job.failure = std::current_exception();
    }
  }
  job.done(job.failure);
}

void Executor::loop() {
  for (;;) {
    Job job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      // With nothing new to enqueue the oldest work in flight is waited for.
      if (jobs_.empty() && !pending_.empty()) {
        lock.unlock();
        finish_oldest();
        continue;
      }
      wake_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    while (pending_.size() >= 2) finish_oldest();
    Pending pending{0, nullptr, std::move(job.done)};
    try {
      job.enqueue(*device_);
      pending.mark = device_->mark();
    } catch (...) {
      pending.failure = std::current_exception();
    }
    pending_.push_back(std::move(pending));
  }
}

}  // namespace mae
