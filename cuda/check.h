// CUDA calls that fail become mae::Failure: the call, CUDA's name, number and words for the error, and the place in our source.
#pragma once
#include <cuda_runtime.h>

#include <string>

#include "../native/device.h"

namespace mae { namespace cuda {

// "cudaErrorNoDevice (100): no CUDA-capable device is detected"
inline std::string describe(cudaError_t error) {
  return std::string(cudaGetErrorName(error)) + " (" + std::to_string(int(error)) + "): " + cudaGetErrorString(error);
}

// Errors after which the process's CUDA context is of no more use; the others say only that this one call did not work.
inline bool is_sticky(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorMpsClientTerminated:
      return true;
    default:
      return false;
  }
}

[[noreturn]] inline void fail(cudaError_t error, const char* call, const char* file, int line) {
  cudaGetLastError();  // the error is reported here; the next call must not meet it again
  std::string message = std::string(call) + " failed with " + describe(error) + ", at " + file + ":" + std::to_string(line);
  if (is_sticky(error))
    message += ". A kernel that ran earlier may be the cause: MAE_REPLAY=0 runs op by op and names it. The process must be started again";
  throw Failure("MAE_CUDA", message);
}

inline void check(cudaError_t error, const char* call, const char* file, int line) {
  if (error != cudaSuccess) fail(error, call, file, line);
}

}}  // namespace mae::cuda

#define CUDA_CHECK(call) ::mae::cuda::check((call), #call, __FILE__, __LINE__)
