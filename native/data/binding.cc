// cropBatch(job) → Promise: cuts, resizes and mirrors the pictures of a batch off the JavaScript thread. lib/data/nativeData.ts declares
// the job's type; lib/data/loader.ts is the caller.
#include <napi.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "crop.h"

namespace mae {
namespace data {
namespace {

// Reads exactly `bytes` at `offset`.
void read_fully(int fd, uint8_t* to, size_t bytes, int64_t offset) {
  while (bytes > 0) {
    const ssize_t got = pread(fd, to, bytes, off_t(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw std::runtime_error(strerror(errno));
    if (got == 0) throw std::runtime_error("the file ends too early");
    to += got, offset += got, bytes -= size_t(got);
  }
}

struct Bytes {
  uint8_t* data;
  size_t size;
};

class CropBatch : public Napi::AsyncWorker {
 public:
  CropBatch(Napi::Env env, Napi::Object job)
      : Napi::AsyncWorker(env, "mae.cropBatch"), deferred_(Napi::Promise::Deferred::New(env)), job_(Napi::Persistent(job)) {
    const auto number = [&](const char* name) { return job.Get(name).As<Napi::Number>().Int64Value(); };
    out_height_ = int(number("height")), out_width_ = int(number("width"));
    channels_ = int(number("channels")), pixel_bytes_ = size_t(channels_ * number("bytesPerValue"));
    workers_ = int(number("workers"));
    const auto crops = job.Get("crops").As<Napi::Int32Array>();
    constexpr size_t kFields = sizeof(Crop) / sizeof(int32_t);
    crops_.resize(crops.ElementLength() / kFields);
    memcpy(crops_.data(), crops.Data(), crops_.size() * sizeof(Crop));  // a copy: the caller may reuse its array at once

    const Bytes out = bytes_of(job.Get("out"));
    require(out.size >= crops_.size() * out_bytes(), "out is too small");
    out_ = out.data;
    if (job.Has("fd")) {
      fd_ = int(number("fd"));
      const auto offsets = job.Get("offsets").As<Napi::Float64Array>();
      require(offsets.ElementLength() == crops_.size(), "needs one offset per crop");
      for (size_t i = 0; i < crops_.size(); ++i) offsets_.push_back(int64_t(offsets[i]));
    } else {
      const auto pictures = job.Get("pictures").As<Napi::Array>();
      require(pictures.Length() == crops_.size(), "needs one picture per crop");
      for (uint32_t i = 0; i < pictures.Length(); ++i) {
        Napi::HandleScope scope(env);
        const Bytes picture = bytes_of(pictures.Get(i));
        require(picture.size >= size_t(crops_[i].source_height) * crops_[i].source_width * pixel_bytes_, "a picture is too small");
        pictures_.push_back(picture.data);
      }
    }
    for (const Crop& crop : crops_) {
      require(crop.valid(out_height_, out_width_), "a crop leaves its picture");
      require(!crop.resamples() || (pixel_bytes_ == size_t(channels_) && channels_ <= kMaxResampledChannels),
              "only uint8 pictures of up to 4 channels can be resized");
    }
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  // On a thread of libuv's pool, helped by threads of this batch's own: starting one costs some 20 µs, a batch takes milliseconds, and
  // threads that end with the batch leave nothing to close.
  void Execute() override {
    std::vector<std::thread> helpers;
    const int wanted = std::min<int>(workers_, int(crops_.size())) - 1;
    try {
      for (int i = 0; i < wanted; ++i) helpers.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // the system gives no more threads: those that there are do the work
    }
    work();
    for (std::thread& helper : helpers) helper.join();
    if (!error_.empty()) SetError(error_);
  }

  void OnOK() override { deferred_.Resolve(Env().Undefined()); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  void require(bool condition, const char* what) {
    if (!condition) throw Napi::Error::New(Env(), std::string("cropBatch: ") + what);
  }
  // Where a typed array's values lie, which does not change while JavaScript holds it. One call for all: four wrapped ones per picture show.
  Bytes bytes_of(Napi::Value value) {
    napi_typedarray_type type;
    size_t length = 0;
    void* data = nullptr;
    const bool known = napi_get_typedarray_info(Env(), value, &type, &length, &data, nullptr, nullptr) == napi_ok;
    require(known && (type == napi_uint8_array || type == napi_float32_array), "needs Uint8Array or Float32Array");
    return Bytes{static_cast<uint8_t*>(data), length * (type == napi_float32_array ? 4 : 1)};
  }
  size_t out_bytes() const { return size_t(out_height_) * out_width_ * pixel_bytes_; }

  void work() {
    try {
      Scratch scratch;
      std::vector<uint8_t> file_rows;
      for (size_t i; (i = next_++) < crops_.size();) crop_one(i, scratch, file_rows);
    } catch (const std::exception& e) {
      next_ = crops_.size();  // the other threads stop at their next picture
      const std::lock_guard<std::mutex> lock(error_mutex_);
      if (error_.empty()) error_ = e.what();
    }
  }

  void crop_one(size_t i, Scratch& scratch, std::vector<uint8_t>& file_rows) {
    const Crop& crop = crops_[i];
    const size_t row = size_t(crop.source_width) * pixel_bytes_, skipped = size_t(crop.top) * row, needed = size_t(crop.height) * row;
    const uint8_t* rows;  // from row crop.top on
    if (offsets_.empty()) {
      rows = pictures_[i] + skipped;
    } else {
      file_rows.resize(std::max(file_rows.size(), needed));
      read_fully(fd_, file_rows.data(), needed, offsets_[i] + int64_t(skipped));
      rows = file_rows.data();
    }
    uint8_t* to = out_ + i * out_bytes();
    if (crop.resamples()) {
      resize_crop(rows, crop, channels_, to, out_height_, out_width_, scratch);
    } else {
      copy_crop(rows, crop, pixel_bytes_, to, out_height_, out_width_);
    }
  }

  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference job_;  // keeps the pictures and the output alive until the promise is settled
  std::vector<Crop> crops_;
  std::vector<const uint8_t*> pictures_;
  int fd_ = -1;
  std::vector<int64_t> offsets_;
  uint8_t* out_ = nullptr;
  int out_height_, out_width_, channels_, workers_;
  size_t pixel_bytes_;
  std::atomic<size_t> next_{0};
  std::mutex error_mutex_;
  std::string error_;
};

Napi::Value crop_batch(const Napi::CallbackInfo& info) {
  auto* batch = new CropBatch(info.Env(), info[0].As<Napi::Object>());  // deletes itself when its promise is settled
  const Napi::Promise promise = batch->promise();
  batch->Queue();
  return promise;
}

}  // namespace
}  // namespace data

Napi::Object init_data(Napi::Env env, Napi::Object exports) {
  exports.Set("cropBatch", Napi::Function::New(env, data::crop_batch));
  return exports;
}

}  // namespace mae
