// The binding: what JavaScript sees of the native side. lib/native.ts is its only caller and declares the same surface.
#include <napi.h>

#include <atomic>
#include <string>
#include <unordered_map>

#include "cpu/pool.h"
#include "executor.h"
#include "program.h"
#include "shared/philox.h"
#include "table.h"
#ifdef MAE_WITH_CUDA
#include "../cuda/cublaslt.h"
#include "../cuda/gemm_choice.h"
#endif

namespace mae {

Napi::Object init_data(Napi::Env env, Napi::Object exports);  // native/data/binding.cc

namespace {

std::atomic<int64_t> live_bytes{0};    // device memory held by buffers and programs
std::atomic<int64_t> live_programs{0};

// What this environment (main thread or worker) holds: one executor per opened device.
struct AddonData {
  Napi::FunctionReference error_class;
  std::unordered_map<std::string, std::weak_ptr<Executor>> executors;
};

Napi::Value new_error(Napi::Env env, const std::string& code, const std::string& message) {
  auto* data = env.GetInstanceData<AddonData>();
  if (data->error_class.IsEmpty()) return Napi::Error::New(env, code + ": " + message).Value();
  return data->error_class.New({Napi::String::New(env, code), Napi::String::New(env, message)});
}

Napi::Value error_of(Napi::Env env, std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Failure& known) {
    return new_error(env, known.code, known.what());
  } catch (const std::exception& unknown) {
    return new_error(env, "MAE_INTERNAL", unknown.what());
  }
}

// Runs `body`; what it throws becomes a MaeError.
template <class F>
auto guarded(Napi::Env env, F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, error_of(env, std::current_exception()));
  }
}

struct Bytes {
  uint8_t* data;
  size_t size;
};
// The bytes under a typed array; stable while JavaScript holds the array.
Bytes bytes_of(const Napi::Value& value) {
  if (!value.IsTypedArray()) throw Failure("MAE_ARGUMENT", "expected a typed array");
  const auto array = value.As<Napi::TypedArray>();
  return {static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset(), array.ByteLength()};
}

// Tells V8 of memory that it does not see, so that a forgotten object is collected some day. Given back in `dispose` and finalizers.
void account(Napi::BasicEnv env, int64_t bytes) { Napi::MemoryManagement::AdjustExternalMemory(env, bytes); }

// --- Device --------------------------------------------------------------------------------------------------------------------
class DeviceObject : public Napi::ObjectWrap<DeviceObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Device",
                       {InstanceAccessor<&DeviceObject::Name>("name"), InstanceMethod<&DeviceObject::Memory>("memory"),
                        InstanceMethod<&DeviceObject::Workspaces>("workspaces")});
  }
  explicit DeviceObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    const std::string id = info[0].As<Napi::String>();
    guarded(info.Env(), [&] {
      auto& slot = info.Env().GetInstanceData<AddonData>()->executors[id];
      executor = slot.lock();
      if (!executor) slot = executor = std::make_shared<Executor>(open(id));
    });
  }
  std::shared_ptr<Executor> executor;

 private:
  static std::shared_ptr<Device> open(const std::string& id) {
    if (id == "cpu") return open_cpu();
#ifdef MAE_WITH_CUDA
    if (id.rfind("cuda:", 0) == 0) return open_cuda(atoi(id.c_str() + 5));
#endif
    throw Failure("MAE_NO_CUDA", "device '" + id + "': this build of the addon has no CUDA; `MAE_CUDA=1 npx mae build` adds it");
  }
  Napi::Value Name(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), executor->device().name()); }
  Napi::Value Memory(const Napi::CallbackInfo& info) {
    size_t free_bytes = 0, total_bytes = 0;
    guarded(info.Env(), [&] { executor->run_now([&](Device& device) { device.memory_info(&free_bytes, &total_bytes); }); });
    auto result = Napi::Object::New(info.Env());
    result["free"] = double(free_bytes);
    result["total"] = double(total_bytes);
    return result;
  }
  Napi::Value Workspaces(const Napi::CallbackInfo& info);
};

// code: Float64Array, per instruction [kernel, (space, offset, dtype, flags) per operand, dims…, reals…].
std::vector<Instruction> decode(const Napi::Value& code, const Napi::Value& labels) {
  const auto array = code.As<Napi::Float64Array>();
  const double *at = array.Data(), *end = at + array.ElementLength();
  const auto names = labels.As<Napi::Array>();
  std::vector<Instruction> instructions;
  while (at < end) {
    Instruction instruction;
    instruction.kernel = int(*at++);
    if (instruction.kernel < 0 || instruction.kernel >= kKernelCount) throw Failure("MAE_INTERNAL", "program code: no such kernel");
    const KernelSignature& signature = kSignatures[instruction.kernel];
    if (end - at < 4 * signature.operand_count + signature.dim_count + signature.real_count) {
      throw Failure("MAE_INTERNAL", std::string("program code ends inside ") + signature.name);
    }
    for (int i = 0; i < signature.operand_count; ++i, at += 4) {
      instruction.space.push_back(int32_t(at[0]));
      instruction.offset.push_back(int64_t(at[1]));
      instruction.dtype.push_back(int32_t(at[2]));
      instruction.flags.push_back(int32_t(at[3]));
    }
    for (int i = 0; i < signature.dim_count; ++i) instruction.dims.push_back(int64_t(*at++));
    for (int i = 0; i < signature.real_count; ++i) instruction.reals.push_back(*at++);
    instruction.label = names.Get(uint32_t(instructions.size())).ToString();
    instructions.push_back(std::move(instruction));
  }
  return instructions;
}

// workspaces(code, labels) → bytes per instruction. Touches no queue: kernels answer from their dims.
Napi::Value DeviceObject::Workspaces(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto instructions = decode(info[0], info[1]);
    auto result = Napi::Float64Array::New(info.Env(), instructions.size());
    for (size_t i = 0; i < instructions.size(); ++i) result[i] = double(instruction_workspace(executor->device(), instructions[i]));
    return result;
  });
}

// A result that crosses from the executor's thread to a promise.
struct Completion {
  explicit Completion(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise::Deferred deferred;
  std::exception_ptr failure;
  std::vector<std::vector<uint8_t>> reads;
  Napi::ObjectReference keep_alive;  // the Buffer or Program that is at work
  std::function<void()> settled;     // JavaScript thread
};

// Submits a job whose `reads` resolve a promise with an array of ArrayBuffers.
Napi::Value submit(Napi::Env env, Executor& executor, std::shared_ptr<Completion> completion, std::function<void(Device&)> enqueue) {
  auto channel = Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "mae", 0, 1);
  executor.submit(std::move(enqueue), [completion, channel](std::exception_ptr failure) mutable {
    completion->failure = failure;
    channel.BlockingCall([completion](Napi::Env env, Napi::Function) {
      if (completion->settled) completion->settled();
      completion->keep_alive.Reset();
      if (completion->failure) {
        completion->deferred.Reject(error_of(env, completion->failure));
        return;
      }
      auto results = Napi::Array::New(env, completion->reads.size());
      for (size_t i = 0; i < completion->reads.size(); ++i) {
        const auto& bytes = completion->reads[i];
        auto copy = Napi::ArrayBuffer::New(env, bytes.size());
        memcpy(copy.Data(), bytes.data(), bytes.size());
        results.Set(uint32_t(i), copy);
      }
      completion->deferred.Resolve(results);
    });
    channel.Release();
  });
  return completion->deferred.Promise();
}

// --- Buffer --------------------------------------------------------------------------------------------------------------------
class BufferObject : public Napi::ObjectWrap<BufferObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Buffer",
                       {InstanceMethod<&BufferObject::Write>("write"), InstanceMethod<&BufferObject::Read>("read"),
                        InstanceMethod<&BufferObject::Fill>("fill"), InstanceMethod<&BufferObject::Dispose>("dispose")});
  }
  // new Buffer(device, bytes): zero-filled.
  explicit BufferObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    executor_ = DeviceObject::Unwrap(info[0].As<Napi::Object>())->executor;
    bytes_ = size_t(info[1].As<Napi::Number>().Int64Value());
    guarded(info.Env(), [&] {
      executor_->run_now([&](Device& device) {
        memory = device.allocate(bytes_);
        device.fill(memory, 0, bytes_);
      });
    });
    live_bytes += int64_t(bytes_);
    account(info.Env(), int64_t(bytes_));
  }
  ~BufferObject() override { release(); }
  void Finalize(Napi::BasicEnv env) override { dispose(env); }

  void* memory = nullptr;

 private:
  void release() {
    if (!memory) return;
    executor_->run_now([&](Device& device) { device.release(memory); });
    memory = nullptr;
    live_bytes -= int64_t(bytes_);
  }
  void check(size_t offset, size_t bytes) const {
    if (!memory) throw Failure("MAE_DISPOSED", "this buffer was disposed");
    if (offset + bytes > bytes_) throw Failure("MAE_INTERNAL", "buffer access past its end");
  }
  Napi::Value Write(const Napi::CallbackInfo& info) {  // write(offset, typedArray)
    return guarded(info.Env(), [&]() -> Napi::Value {
      const size_t offset = size_t(info[0].As<Napi::Number>().Int64Value());
      const Bytes source = bytes_of(info[1]);
      check(offset, source.size);
      executor_->run_now([&](Device& device) {
        device.upload(static_cast<uint8_t*>(memory) + offset, source.data, source.size);
        device.synchronize();
      });
      return info.Env().Undefined();
    });
  }
  Napi::Value Read(const Napi::CallbackInfo& info) {  // read(offset, bytes) → Promise<[ArrayBuffer]>, after all runs submitted before
    return guarded(info.Env(), [&]() -> Napi::Value {
      const size_t offset = size_t(info[0].As<Napi::Number>().Int64Value());
      const size_t bytes = size_t(info[1].As<Napi::Number>().Int64Value());
      check(offset, bytes);
      auto completion = std::make_shared<Completion>(info.Env());
      completion->keep_alive = Napi::Persistent(info.This().As<Napi::Object>());
      completion->reads.emplace_back(bytes);
      const uint8_t* source = static_cast<uint8_t*>(memory) + offset;
      return submit(info.Env(), *executor_, completion,
                    [completion, source, bytes](Device& device) { device.download(completion->reads[0].data(), source, bytes); });
    });
  }
  Napi::Value Fill(const Napi::CallbackInfo& info) {  // fill(byte)
    return guarded(info.Env(), [&]() -> Napi::Value {
      check(0, 0);
      executor_->run_now([&](Device& device) { device.fill(memory, uint8_t(info[0].As<Napi::Number>().Uint32Value()), bytes_); });
      return info.Env().Undefined();
    });
  }
  Napi::Value Dispose(const Napi::CallbackInfo& info) {
    guarded(info.Env(), [&] { dispose(info.Env()); });
    return info.Env().Undefined();
  }
  void dispose(Napi::BasicEnv env) {
    if (memory) account(env, -int64_t(bytes_));
    release();
  }

  std::shared_ptr<Executor> executor_;
  size_t bytes_ = 0;
};

// --- Program -------------------------------------------------------------------------------------------------------------------
class ProgramObject : public Napi::ObjectWrap<ProgramObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Program",
                       {InstanceMethod<&ProgramObject::Run>("run"), InstanceMethod<&ProgramObject::Tune>("tune"),
                        InstanceMethod<&ProgramObject::Profile>("profile"), InstanceMethod<&ProgramObject::Dispose>("dispose")});
  }

  // new Program(device, {code, labels, segments: Int32Array [first, last, …], buffers: Buffer[], arenaBytes, inputBytes, workspaceBytes,
  //                      microBatches, replay, poison})
  explicit ProgramObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    executor_ = DeviceObject::Unwrap(info[0].As<Napi::Object>())->executor;
    const auto options = info[1].As<Napi::Object>();
    const auto number = [&](const char* key) { return options.Get(key).As<Napi::Number>().Int64Value(); };
    guarded(info.Env(), [&] {
      ProgramSpec spec;
      spec.instructions = decode(options.Get("code"), options.Get("labels"));
      const auto segments = options.Get("segments").As<Napi::Int32Array>();
      for (size_t i = 0; i + 1 < segments.ElementLength(); i += 2) spec.segments.push_back({segments[i], segments[i + 1]});
      const auto buffers = options.Get("buffers").As<Napi::Array>();
      for (uint32_t i = 0; i < buffers.Length(); ++i) {
        BufferObject* buffer = BufferObject::Unwrap(buffers.Get(i).As<Napi::Object>());
        if (!buffer->memory) throw Failure("MAE_DISPOSED", "the store of this program was disposed");
        spec.buffers.push_back(buffer->memory);
      }
      buffers_ = Napi::Persistent(buffers.As<Napi::Object>());  // the memory outlives the program
      spec.arena_bytes = size_t(number("arenaBytes"));
      spec.input_bytes = size_t(number("inputBytes"));
      spec.workspace_bytes = size_t(number("workspaceBytes"));
      spec.micro_batches = int(number("microBatches"));
      spec.replay = Replay(number("replay"));
      spec.poison = options.Get("poison").ToBoolean();
      executor_->run_now([&](Device&) { program_ = std::make_unique<Program>(share_device(), std::move(spec)); });
    });
    live_bytes += int64_t(program_->device_bytes());
    ++live_programs;
    account(info.Env(), int64_t(program_->device_bytes()));
  }
  ~ProgramObject() override { release(); }
  void Finalize(Napi::BasicEnv env) override { dispose(env); }

 private:
  std::shared_ptr<Device> share_device() { return std::shared_ptr<Device>(executor_, &executor_->device()); }

  void release() {
    if (!program_) return;
    live_bytes -= int64_t(program_->device_bytes());
    --live_programs;
    executor_->run_now([&](Device& device) {
      device.synchronize();
      program_.reset();
    });
  }
  void check() const {
    if (!program_) throw Failure("MAE_DISPOSED", "this program was disposed");
  }
  std::vector<Stage> stages_of(const Napi::Value& value) const {  // Int32Array [segment, micro-batch, accumulate, …]
    const auto array = value.As<Napi::Int32Array>();
    std::vector<Stage> stages;
    for (size_t i = 0; i + 2 < array.ElementLength(); i += 3) stages.push_back({array[i], array[i + 1], array[i + 2] != 0});
    return stages;
  }
  // inputs: [microBatch, offset, typedArray, …] into the slot's host memory.
  void take_inputs(int slot, const Napi::Value& value) {
    const auto list = value.As<Napi::Array>();
    for (uint32_t i = 0; i + 2 < list.Length(); i += 3) {
      const int micro_batch = list.Get(i).As<Napi::Number>().Int32Value();
      const size_t offset = size_t(list.Get(i + 1).As<Napi::Number>().Int64Value());
      const Bytes source = bytes_of(list.Get(i + 2));
      if (offset + source.size > program_->spec().input_bytes) throw Failure("MAE_INTERNAL", "input past the end of its slot");
      memcpy(program_->host_inputs(slot, micro_batch) + offset, source.data, source.size);
    }
  }

  // run(inputs, stages, reads: Float64Array [space, offset, bytes, …]) → Promise<ArrayBuffer[]>. Inputs are taken before it returns.
  // Two runs may be in flight; a third is MAE_BUSY (lib/graph/program.ts waits instead).
  Napi::Value Run(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      check();
      const int slot = busy_[0] ? 1 : 0;
      if (busy_[slot]) throw Failure("MAE_BUSY", "two runs of this program are in flight already: wait for one of them");
      take_inputs(slot, info[0]);
      const auto stages = stages_of(info[1]);
      const auto reads = info[2].As<Napi::Float64Array>();
      auto completion = std::make_shared<Completion>(info.Env());
      completion->keep_alive = Napi::Persistent(info.This().As<Napi::Object>());
      completion->settled = [this, slot] { busy_[slot] = false; };
      std::vector<std::pair<int, int64_t>> places;
      for (size_t i = 0; i + 2 < reads.ElementLength(); i += 3) {
        places.push_back({int(reads[i]), int64_t(reads[i + 1])});
        completion->reads.emplace_back(size_t(reads[i + 2]));
      }
      busy_[slot] = true;
      Program* program = program_.get();
      const int64_t run_number = ++runs_;
      return submit(info.Env(), *executor_, completion, [=](Device& device) {
        program->enqueue(slot, stages, run_number);
        for (size_t i = 0; i < places.size(); ++i) {
          auto& bytes = completion->reads[i];
          device.download(bytes.data(), program->address(places[i].first, places[i].second, slot * program->spec().micro_batches), bytes.size());
        }
      });
    });
  }

  // tune(stages) → Promise<[]>: program.h says what it does. Before the first run: inputs are whatever lies in their slot.
  Napi::Value Tune(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      check();
      if (busy_[0] || busy_[1]) throw Failure("MAE_BUSY", "a run of this program is in flight: wait for it before tuning");
      const auto stages = stages_of(info[0]);
      auto completion = std::make_shared<Completion>(info.Env());
      completion->keep_alive = Napi::Persistent(info.This().As<Napi::Object>());
      completion->settled = [this] { busy_[0] = false; };
      busy_[0] = true;
      Program* program = program_.get();
      return submit(info.Env(), *executor_, completion, [=](Device&) { program->tune(stages); });
    });
  }

  // profile(inputs, stages) → Float64Array: seconds of each instruction. Blocks.
  Napi::Value Profile(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      check();
      if (busy_[0] || busy_[1]) throw Failure("MAE_BUSY", "a run of this program is in flight: wait for it before profiling");
      take_inputs(0, info[0]);
      const auto stages = stages_of(info[1]);
      std::vector<double> seconds;
      executor_->run_now([&](Device&) { seconds = program_->profile(0, stages); });
      auto result = Napi::Float64Array::New(info.Env(), seconds.size());
      memcpy(result.Data(), seconds.data(), 8 * seconds.size());
      return result;
    });
  }

  Napi::Value Dispose(const Napi::CallbackInfo& info) {
    guarded(info.Env(), [&] { dispose(info.Env()); });
    buffers_.Reset();
    return info.Env().Undefined();
  }
  void dispose(Napi::BasicEnv env) {
    if (program_) account(env, -int64_t(program_->device_bytes()));
    release();
  }

  std::shared_ptr<Executor> executor_;
  std::unique_ptr<Program> program_;
  Napi::ObjectReference buffers_;
  bool busy_[Program::kSlots] = {};
  int64_t runs_ = 0;
};

// --- functions -----------------------------------------------------------------------------------------------------------------
Napi::Value Kernels(const Napi::CallbackInfo& info) {
  auto list = Napi::Array::New(info.Env());
  for (int i = 0; i < kKernelCount; ++i) {
    const KernelSignature& signature = kSignatures[i];
    auto row = Napi::Object::New(info.Env());
    row["name"] = signature.name;
    row["inputs"] = signature.inputs;
    row["outputs"] = signature.outputs;
    row["dims"] = signature.dims;
    row["reals"] = signature.reals;
    row["cuda"] = Napi::Boolean::New(info.Env(), signature.on_cuda);
    list.Set(uint32_t(i), row);
  }
  return list;
}

Napi::Value Devices(const Napi::CallbackInfo& info) {
  std::vector<DeviceInfo> found;
#ifdef MAE_WITH_CUDA
  found = list_cuda();
#endif
  found.push_back({"cpu", "cpu", std::string(cpu::isa_name(cpu::best_isa())) + ", " + std::to_string(cpu::threads()) + " threads", true, ""});
  auto list = Napi::Array::New(info.Env());
  for (size_t i = 0; i < found.size(); ++i) {
    auto row = Napi::Object::New(info.Env());
    row["id"] = found[i].id;
    row["name"] = found[i].name;
    row["detail"] = found[i].detail;
    row["usable"] = Napi::Boolean::New(info.Env(), found[i].usable);
    row["reason"] = found[i].reason;
    list.Set(uint32_t(i), row);
  }
  return list;
}

Napi::Value Stats(const Napi::CallbackInfo& info) {
  auto result = Napi::Object::New(info.Env());
  result["deviceBytes"] = double(live_bytes.load());
  return result;
}

Napi::Value BuildInfo(const Napi::CallbackInfo& info) {
  auto result = Napi::Object::New(info.Env());
#ifdef MAE_WITH_CUDA
  result["cuda"] = Napi::Boolean::New(info.Env(), true);
  result["cudaArchitectures"] = MAE_CUDA_ARCH_LIST;
#else
  result["cuda"] = Napi::Boolean::New(info.Env(), false);
  result["cudaArchitectures"] = "";
#endif
  result["compiler"] = __VERSION__;
  return result;
}

Napi::Value SetErrorClass(const Napi::CallbackInfo& info) {
  info.Env().GetInstanceData<AddonData>()->error_class = Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

// Kernels size their workspace by the number of threads when a program is planned: it grows only while there is none.
Napi::Value SetThreads(const Napi::CallbackInfo& info) {
  const int wanted = info[0].As<Napi::Number>().Int32Value();
  guarded(info.Env(), [&] {
    const int before = cpu::threads();
    cpu::set_threads(wanted);
    if (live_programs > 0 && cpu::threads() > before) {
      cpu::set_threads(before);
      throw Failure("MAE_BUSY", "setThreads: more threads can be had only before the first model is made, or after all were disposed");
    }
  });
  return Napi::Number::New(info.Env(), cpu::threads());
}

// fillUniform(values, bound, seed, purpose, c0): values[i] = bound · (2u − 1) with the i-th u of lib/random.ts's RandomStream, the same bits.
Napi::Value FillUniform(const Napi::CallbackInfo& info) {
  auto values = info[0].As<Napi::Float32Array>();
  const double bound = info[1].As<Napi::Number>();
  const uint32_t seed = info[2].As<Napi::Number>(), purpose = info[3].As<Napi::Number>(), c0 = info[4].As<Napi::Number>();
  float* out = values.Data();
  const int64_t count = int64_t(values.ElementLength()), chunk = 1 << 16;
  cpu::parallel_for((count + chunk - 1) / chunk, [=](int64_t which, int) {
    for (int64_t i = which * chunk, end = i + chunk < count ? i + chunk : count; i < end; i += 2) {
      const Philox4 words = philox(c0, 0, uint32_t(i / 2), 0, seed, purpose);
      const auto draw = [bound](uint32_t low, uint32_t high) {
        return float(bound * (2 * ((double(high >> 5) * 0x4000000 + double(low >> 6)) / 0x20000000000000) - 1));
      };
      out[i] = draw(words.v[3], words.v[2]);
      if (i + 1 < end) out[i + 1] = draw(words.v[1], words.v[0]);
    }
  });
  return info.Env().Undefined();
}

#ifdef MAE_WITH_CUDA
// gemmChoices(gpu) → Int32Array, cuda/gemm_choice.h's table of a model of GPU; addGemmChoices(gpu, Int32Array) takes lines of such a table over.
Napi::Value GemmChoices(const Napi::CallbackInfo& info) {
  const std::vector<int32_t> table = cuda::export_gemm_choices(info[0].As<Napi::String>());
  auto result = Napi::Int32Array::New(info.Env(), table.size());
  std::copy(table.begin(), table.end(), result.Data());
  return result;
}

Napi::Value AddGemmChoices(const Napi::CallbackInfo& info) {
  const std::string gpu = info[0].As<Napi::String>();
  const auto table = info[1].As<Napi::Int32Array>();
  guarded(info.Env(), [&] { cuda::import_gemm_choices(gpu, {table.Data(), table.Data() + table.ElementLength()}); });
  return info.Env().Undefined();
}

// cublasLt() → {found, description}; opens the library.
Napi::Value CublasLt(const Napi::CallbackInfo& info) {
  auto result = Napi::Object::New(info.Env());
  result["found"] = Napi::Boolean::New(info.Env(), cuda::cublaslt_available());
  result["description"] = cuda::cublaslt_description();
  return result;
}
#endif

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData());
  exports["Device"] = DeviceObject::Define(env);
  exports["Buffer"] = BufferObject::Define(env);
  exports["Program"] = ProgramObject::Define(env);
  exports["kernels"] = Napi::Function::New(env, Kernels);
  exports["devices"] = Napi::Function::New(env, Devices);
  exports["stats"] = Napi::Function::New(env, Stats);
  exports["buildInfo"] = Napi::Function::New(env, BuildInfo);
  exports["setErrorClass"] = Napi::Function::New(env, SetErrorClass);
  exports["fillUniform"] = Napi::Function::New(env, FillUniform);
  exports["setThreads"] = Napi::Function::New(env, SetThreads);
#ifdef MAE_WITH_CUDA
  exports["gemmChoices"] = Napi::Function::New(env, GemmChoices);
  exports["addGemmChoices"] = Napi::Function::New(env, AddGemmChoices);
  exports["cublasLt"] = Napi::Function::New(env, CublasLt);
#endif
  return init_data(env, exports);
}

}  // namespace
}  // namespace mae

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) { return mae::Init(env, exports); }
NODE_API_MODULE(mae, InitAddon)
