// One thread that feeds a device, in the order of submission, so that the JavaScript thread never waits for arithmetic.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "device.h"

namespace mae {

class Executor {
 public:
  explicit Executor(std::shared_ptr<Device> device);
  ~Executor();  // runs what was submitted, then ends

  // `enqueue` runs on the executor's thread and puts work on the device's queue; `done` follows, on the same thread, once the queue has
  // passed that work, with what failed or null. At most two jobs are between the two.
  void submit(std::function<void(Device&)> enqueue, std::function<void(std::exception_ptr)> done);
  // Blocks until everything submitted so far is done, then runs `body` on the executor's thread; throws what it throws.
  void run_now(const std::function<void(Device&)>& body);

  Device& device() { return *device_; }

 private:
  struct Job {
    std::function<void(Device&)> enqueue;
    std::function<void(std::exception_ptr)> done;
  };
  struct Pending {
    uint64_t mark;
    std::exception_ptr failure;
    std::function<void(std::exception_ptr)> done;
  };
  void loop();
  void finish_oldest();

  std::shared_ptr<Device> device_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  std::deque<Pending> pending_;  // the loop's own
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace mae
