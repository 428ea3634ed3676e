#include "gemm_choice.h"

#include <string.h>

#include <atomic>
#include <map>
#include <mutex>
#include <tuple>

#include "../native/device.h"
#include "check.h"

namespace mae { namespace cuda {
namespace {

struct Less {
  static auto tie(const GemmKey& k) { return std::tie(k.layout, k.operands, k.c_dtype, k.epilogue, k.m, k.n, k.k); }
  bool operator()(const GemmKey& a, const GemmKey& b) const { return tie(a) < tie(b); }
};

static_assert(sizeof(GemmKey) + sizeof(GemmChoice) == kGemmChoiceIntegers * sizeof(int32_t), "a line is the key and the choice");

using Table = std::map<GemmKey, GemmChoice, Less>;
std::mutex mutex;
std::map<std::string, Table> tables;  // by model; entries are never removed: pointers to them stay valid
std::atomic<bool> tuning{false};

// The current device's.
Table& current_table() {
  // A thread works for one device at a time, and the GPUs of a machine may differ.
  thread_local int known_device = -1;
  thread_local Table* table = nullptr;
  int device;
  CUDA_CHECK(cudaGetDevice(&device));
  if (device != known_device) {
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    table = &tables[properties.name], known_device = device;
  }
  return *table;
}

}  // namespace

const char* name_of(GemmImplementation implementation) {
  switch (implementation) {
    case GemmImplementation::Simt: return "float32 128x128";
    case GemmImplementation::Mma128: return "mma.sync 128x128";
    case GemmImplementation::Mma64: return "mma.sync 64x64";
    case GemmImplementation::Wgmma256: return "wgmma 128x256";
    case GemmImplementation::Wgmma256Cluster2: return "wgmma 128x256, clusters of 2";
    case GemmImplementation::Wgmma128: return "wgmma 128x128 in turn";
    case GemmImplementation::Wgmma128Cluster2: return "wgmma 128x128 in turn, clusters of 2";
    case GemmImplementation::CublasLt: return "cuBLASLt";
    case GemmImplementation::CublasLtBias: return "cuBLASLt with bias";
  }
  return "unknown";
}

const GemmChoice* find_gemm_choice(const GemmKey& key) {
  std::lock_guard<std::mutex> lock(mutex);
  const Table& table = current_table();
  const auto found = table.find(key);
  return found == table.end() ? nullptr : &found->second;
}

void set_gemm_choice(const GemmKey& key, const GemmChoice& choice) {
  std::lock_guard<std::mutex> lock(mutex);
  current_table()[key] = choice;
}

std::vector<int32_t> export_gemm_choices(const std::string& gpu) {
  std::lock_guard<std::mutex> lock(mutex);
  const Table& table = tables[gpu];
  std::vector<int32_t> integers(table.size() * kGemmChoiceIntegers);
  int32_t* line = integers.data();
  for (const auto& entry : table) {
    memcpy(line, &entry.first, sizeof(GemmKey));
    memcpy(line + sizeof(GemmKey) / sizeof(int32_t), &entry.second, sizeof(GemmChoice));
    line += kGemmChoiceIntegers;
  }
  return integers;
}

void import_gemm_choices(const std::string& gpu, const std::vector<int32_t>& integers) {
  if (integers.size() % kGemmChoiceIntegers != 0) {
    throw Failure("MAE_CONFIG", "stored GEMM choices need a multiple of " + std::to_string(kGemmChoiceIntegers) + " integers and have " +
                                    std::to_string(integers.size()) + ". Remove gemmChoices from the checkpoint's state.json to choose anew");
  }
  for (size_t at = 0; at < integers.size(); at += kGemmChoiceIntegers) {
    GemmKey key;
    GemmChoice choice;
    memcpy(&key, &integers[at], sizeof key);
    memcpy(&choice, &integers[at + sizeof key / sizeof(int32_t)], sizeof choice);
    if (choice.implementation < GemmImplementation::Simt || choice.implementation > GemmImplementation::CublasLtBias) {
      throw Failure("MAE_CONFIG", "stored GEMM choices name implementation " + std::to_string(int(choice.implementation)) +
                                      ", which this version does not know. Remove gemmChoices from the checkpoint's state.json to choose anew");
    }
    std::lock_guard<std::mutex> lock(mutex);
    tables[gpu][key] = choice;
  }
}

void set_gemm_tuning(bool on) { tuning = on; }
bool gemm_tuning() { return tuning; }

}}  // namespace mae::cuda
