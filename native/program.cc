#include "program.h"

#include <string.h>
#include <algorithm>
#include <chrono>

#include "table.h"

namespace mae {
namespace {

// The arguments of one launch in the layout of `<name>_args`: operands, dims, reals.
struct Arguments {
  alignas(16) uint8_t bytes[1024];
  size_t used = 0;
  void operand(void* data, int32_t dtype, int32_t flags) {
    const Operand value{data, DType(dtype), flags};
    memcpy(bytes + used, &value, sizeof value);
    used += sizeof value;
  }
  template <class T>
  void values(const std::vector<T>& list) {
    static_assert(sizeof(T) == 8, "dims and reals are eight bytes each");
    if (!list.empty()) memcpy(bytes + used, list.data(), 8 * list.size());
    used += 8 * list.size();
  }
};

std::string describe(const std::exception& error, const Instruction& instruction, int64_t run_number) {
  return std::string(error.what()) + " (in " + kSignatures[instruction.kernel].name + " of " + instruction.label + ", run " +
         std::to_string(run_number) + ")";
}

}  // namespace

size_t instruction_workspace(const Device& device, const Instruction& instruction) {
  Arguments arguments;
  for (size_t i = 0; i < instruction.space.size(); ++i) {
    const bool absent = instruction.space[i] == kAbsent;
    arguments.operand(reinterpret_cast<void*>(uintptr_t(absent ? 0 : 256)), instruction.dtype[i], instruction.flags[i]);
  }
  arguments.values(instruction.dims);
  arguments.values(instruction.reals);
  const KernelFunctions& functions = device.kernels()[instruction.kernel];
  if (!functions.run) {
    throw Failure("MAE_GRAPH", std::string("kernel '") + kSignatures[instruction.kernel].name + "' (" + instruction.label +
                                   ") does not exist on " + device.name() + ": run this program on the CPU");
  }
  return functions.workspace(arguments.bytes);
}

Program::Program(std::shared_ptr<Device> device, ProgramSpec spec) : device_(std::move(device)), spec_(std::move(spec)) {
  const size_t all_inputs = spec_.input_bytes * size_t(kSlots * spec_.micro_batches);
  try {
    if (spec_.arena_bytes) arena_ = static_cast<uint8_t*>(device_->allocate(spec_.arena_bytes));
    if (spec_.workspace_bytes) workspace_ = static_cast<uint8_t*>(device_->allocate(spec_.workspace_bytes));
    if (all_inputs) {
      inputs_ = static_cast<uint8_t*>(device_->allocate(all_inputs));
      host_inputs_ = static_cast<uint8_t*>(device_->allocate_host(all_inputs));
      memset(host_inputs_, 0, all_inputs);
    }
  } catch (...) {
    device_->release(arena_);
    device_->release(workspace_);
    device_->release(inputs_);
    throw;
  }
}

Program::~Program() {
  recordings_.clear();
  device_->release(arena_);
  device_->release(workspace_);
  device_->release(inputs_);
  device_->release_host(host_inputs_);
}

size_t Program::device_bytes() const {
  return spec_.arena_bytes + spec_.workspace_bytes + spec_.input_bytes * size_t(kSlots * spec_.micro_batches);
}

uint8_t* Program::host_inputs(int slot, int micro_batch) {
  return host_inputs_ + spec_.input_bytes * size_t(slot * spec_.micro_batches + micro_batch);
}

void* Program::address(int space, int64_t offset, int slot) const {
  switch (space) {
    case kAbsent: return nullptr;
    case kArena: return arena_ + offset;
    case kInputs: return inputs_ + spec_.input_bytes * size_t(slot) + offset;  // slot: of the ring of slots × micro-batches
    default: return static_cast<uint8_t*>(spec_.buffers[size_t(space - kFirstBuffer)]) + offset;
  }
}

void Program::launch(const Instruction& instruction, int slot, const Stage& stage) {
  const int input_slot = slot * spec_.micro_batches + stage.micro_batch;
  Arguments arguments;
  for (size_t i = 0; i < instruction.space.size(); ++i) {
    const int32_t flags = instruction.flags[i];
    const bool accumulate = (flags & kAlwaysAccumulate) || ((flags & kAccumulateAfterFirst) && stage.accumulate);
    arguments.operand(address(instruction.space[i], instruction.offset[i], input_slot), instruction.dtype[i], accumulate ? kAccumulate : 0);
  }
  arguments.values(instruction.dims);
  arguments.values(instruction.reals);
  Context context{workspace_, spec_.workspace_bytes, device_->stream()};
  device_->kernels()[instruction.kernel].run(arguments.bytes, context);
}

void Program::upload(int slot, const std::vector<Stage>& stages) {
  if (!spec_.input_bytes) return;
  int micro_batches = 0;
  for (const Stage& stage : stages) micro_batches = std::max(micro_batches, stage.micro_batch + 1);
  void* device = inputs_ + spec_.input_bytes * size_t(slot * spec_.micro_batches);
  const size_t bytes = spec_.input_bytes * size_t(micro_batches);
  // The slot's previous reader was two runs ago: with a second queue this copy runs behind the step before this one.
  if (used_[slot]) device_->upload_ahead(device, host_inputs(slot, 0), bytes, last_use_[slot]);
  else device_->upload(device, host_inputs(slot, 0), bytes);
}

void Program::launch_all(int slot, const std::vector<Stage>& stages, int64_t run_number, bool op_by_op) {
  for (const Stage& stage : stages) {
    const auto [first, last] = spec_.segments[size_t(stage.segment)];
    for (int i = first; i < last; ++i) {
      const Instruction& instruction = spec_.instructions[size_t(i)];
      try {
        launch(instruction, slot, stage);
        if (op_by_op) device_->synchronize();
      } catch (const Failure& failure) {
        throw Failure(failure.code, describe(failure, instruction, run_number));
      }
    }
  }
}

void Program::enqueue(int slot, const std::vector<Stage>& stages, int64_t run_number) {
  upload(slot, stages);
  if (spec_.poison && arena_) device_->fill(arena_, 0xff, spec_.arena_bytes);
  if (spec_.replay == Replay::kGraph && device_->can_record()) {
    std::vector<int> key{slot};
    for (const Stage& stage : stages) key.insert(key.end(), {stage.segment, stage.micro_batch, int(stage.accumulate)});
    std::unique_ptr<Recording>& recording = recordings_[key];
    if (!recording) {
      // The first run of a kind goes plainly, which lets kernels do what a recording forbids (set attributes, load modules).
      launch_all(slot, stages, run_number, false);
      device_->begin_recording();
      try {
        launch_all(slot, stages, run_number, false);
      } catch (...) {
        try {
          device_->end_recording();
        } catch (const Failure&) {  // what broke the recording is the news, not that it is broken
        }
        throw;
      }
      recording = device_->end_recording();
    } else {
      device_->replay(*recording);
    }
  } else {
    launch_all(slot, stages, run_number, spec_.replay == Replay::kOpByOp);
  }
  last_use_[slot] = device_->mark();
  used_[slot] = true;
}

void Program::tune(const std::vector<Stage>& stages) {
  struct Tuning {
    Device& device;
    explicit Tuning(Device& of) : device(of) { device.set_tuning(true); }
    ~Tuning() { device.set_tuning(false); }
  };
  upload(0, stages);
  const Tuning tuning(*device_);
  launch_all(0, stages, 0, false);
}

std::vector<double> Program::profile(int slot, const std::vector<Stage>& stages) {
  upload(slot, stages);
  device_->synchronize();
  std::vector<double> seconds;
  for (const Stage& stage : stages) {
    const auto [first, last] = spec_.segments[size_t(stage.segment)];
    for (int i = first; i < last; ++i) {
      const auto start = std::chrono::steady_clock::now();
      launch(spec_.instructions[size_t(i)], slot, stage);
      device_->synchronize();
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  return seconds;
}

}  // namespace mae
