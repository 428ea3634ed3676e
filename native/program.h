// A program is a flat list of kernel launches over buffers at known places; it knows nothing of models or gradients. TypeScript plans it
// (lib/graph/plan.ts), this replays it.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "device.h"

namespace mae {

// Where an operand lies: a space and a byte offset in it. Spaces from kFirstBuffer on are the buffers that the program was made with.
enum Space : int32_t { kAbsent = 0, kArena = 1, kInputs = 2, kFirstBuffer = 3 };

// Operand flags of a program; kAccumulate is what the kernel sees.
enum ProgramFlags : int32_t { kAlwaysAccumulate = 1, kAccumulateAfterFirst = 2 };

struct Instruction {
  int kernel;
  std::vector<int32_t> space, dtype, flags;  // per operand
  std::vector<int64_t> offset;
  std::vector<int64_t> dims;
  std::vector<double> reals;
  std::string label;  // "encoder.blocks.3.attention" for messages and profiles
};

enum class Replay { kOpByOp = 0, kReplay = 1, kGraph = 2 };

struct ProgramSpec {
  std::vector<Instruction> instructions;
  std::vector<std::pair<int, int>> segments;  // [first, last) instruction
  std::vector<void*> buffers;                 // device addresses of spaces kFirstBuffer…
  size_t arena_bytes = 0;
  size_t input_bytes = 0;  // of one micro-batch
  size_t workspace_bytes = 0;
  int micro_batches = 1;
  Replay replay = Replay::kReplay;
  bool poison = false;  // fill the arena with NaN before every run: finds reads of what was never written
};

// One entry of a run: which segment, on which micro-batch's inputs, and whether it is not the first one to write the gradients.
struct Stage {
  int segment, micro_batch;
  bool accumulate;
};

class Program {
 public:
  static constexpr int kSlots = 2;  // inputs of the running and of the next step

  Program(std::shared_ptr<Device> device, ProgramSpec spec);
  ~Program();
  Program(const Program&) = delete;

  // Host memory that the inputs of (slot, micro-batch) are written to before enqueue.
  uint8_t* host_inputs(int slot, int micro_batch);
  // Puts one run on the device's queue. Executor's thread.
  void enqueue(int slot, const std::vector<Stage>& stages, int64_t run_number);
  // Lets the device choose implementations by timing them on the launches of `stages`, on this program's own buffers: everything that the
  // stages write is undefined afterwards. Before the first run; executor's thread.
  void tune(const std::vector<Stage>& stages);
  // Device address of a place of this program.
  void* address(int space, int64_t offset, int slot) const;
  // Seconds of every instruction of a run of `stages`, one after the other with a wait between them.
  std::vector<double> profile(int slot, const std::vector<Stage>& stages);

  const ProgramSpec& spec() const { return spec_; }
  size_t device_bytes() const;

 private:
  void upload(int slot, const std::vector<Stage>& stages);
  void launch(const Instruction& instruction, int slot, const Stage& stage);
  void launch_all(int slot, const std::vector<Stage>& stages, int64_t run_number, bool op_by_op);

  std::shared_ptr<Device> device_;
  ProgramSpec spec_;
  uint8_t* arena_ = nullptr;
  uint8_t* workspace_ = nullptr;
  uint8_t* inputs_ = nullptr;       // device: slots × micro-batches
  uint8_t* host_inputs_ = nullptr;  // host: likewise
  uint64_t last_use_[kSlots] = {};
  bool used_[kSlots] = {};
  std::map<std::vector<int>, std::unique_ptr<Recording>> recordings_;
};

// Bytes of workspace that an instruction asks for on this device (data pointers are not looked at, only null or not).
size_t instruction_workspace(const Device& device, const Instruction& instruction);

}  // namespace mae
