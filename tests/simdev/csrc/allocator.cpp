// Device memory with a cache, a limit and statistics.
//
// Blocks are kept on release and handed out again for the same rounded size, so that reserved and
// allocated bytes differ as on a real device. The cache is dropped before running out of memory.
#include "runtime.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/StorageImpl.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <iomanip>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

namespace simdev {
namespace {

constexpr size_t kRoundingBytes = 512;

struct Block {
  void* data;
  size_t nbytes;
  c10::DeviceIndex index;
};

struct Device {
  std::mutex mutex;
  std::multimap<size_t, void*> cache;
  c10::CachingDeviceAllocator::DeviceStats stats;

  size_t reserved_bytes() const {
    return static_cast<size_t>(stats.reserved_bytes[0].current);
  }
};

// Never destroyed: tensors may outlive static destruction.
std::array<Device, kNumDevices>& devices() {
  static auto* all = new std::array<Device, kNumDevices>();
  return *all;
}

std::string gib(size_t nbytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(2) << double(nbytes) / double(1 << 30) << " GiB";
  return text.str();
}

void drop_cache(Device& device) {
  for (const auto& [nbytes, data] : device.cache) {
    std::free(data);
    device.stats.reserved_bytes[0].decrease(nbytes);
    device.stats.segment[0].decrease(1);
    device.stats.num_device_free += 1;
  }
  device.cache.clear();
}

// As vendors word it; deliberately a RuntimeError and not torch.OutOfMemoryError.
[[noreturn]] void raise_out_of_memory(Device& device, c10::DeviceIndex index, size_t nbytes) {
  device.stats.num_ooms += 1;
  const size_t reserved = device.reserved_bytes();
  const size_t total = quirks().memory_bytes;
  TORCH_CHECK(
      false, "SIMDEV out of memory. Tried to allocate ", gib(nbytes), " (simdev:", int(index),
      "; ", gib(total), " total capacity; ",
      gib(size_t(device.stats.allocated_bytes[0].current)), " already allocated; ",
      gib(total - std::min(total, reserved)), " free; ", gib(reserved),
      " reserved in total by PyTorch)");
}

void* take_block(Device& device, c10::DeviceIndex index, size_t nbytes) {
  if (auto cached = device.cache.find(nbytes); cached != device.cache.end()) {
    void* data = cached->second;
    device.cache.erase(cached);
    return data;
  }
  if (device.reserved_bytes() + nbytes > quirks().memory_bytes) {
    drop_cache(device);
    device.stats.num_alloc_retries += 1;
  }
  void* data = nullptr;
  if (device.reserved_bytes() + nbytes > quirks().memory_bytes ||
      posix_memalign(&data, 64, nbytes) != 0) {
    raise_out_of_memory(device, index, nbytes);
  }
  device.stats.reserved_bytes[0].increase(nbytes);
  device.stats.segment[0].increase(1);
  device.stats.num_device_alloc += 1;
  return data;
}

void count(Device& device, size_t nbytes) {
  device.stats.allocation[0].increase(1);
  device.stats.active[0].increase(1);
  device.stats.allocated_bytes[0].increase(nbytes);
  device.stats.active_bytes[0].increase(nbytes);
  device.stats.requested_bytes[0].increase(nbytes);
}

void discount(Device& device, size_t nbytes) {
  device.stats.allocation[0].decrease(1);
  device.stats.active[0].decrease(1);
  device.stats.allocated_bytes[0].decrease(nbytes);
  device.stats.active_bytes[0].decrease(nbytes);
  device.stats.requested_bytes[0].decrease(nbytes);
}

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  auto& device = devices()[block->index];
  {
    std::lock_guard<std::mutex> lock(device.mutex);
    discount(device, block->nbytes);
    device.cache.emplace(block->nbytes, block->data);
  }
  delete block;
}

c10::DataPtr allocate_on_current(size_t nbytes) {
  const auto index = current_device();
  const c10::Device where(c10::DeviceType::PrivateUse1, index);
  check_device(index);
  if (nbytes == 0) {
    return {nullptr, where};
  }
  const size_t rounded = (nbytes + kRoundingBytes - 1) / kRoundingBytes * kRoundingBytes;
  auto& device = devices()[index];
  std::lock_guard<std::mutex> lock(device.mutex);
  void* data = take_block(device, index, rounded);
  count(device, rounded);
  return {data, new Block{data, rounded, index}, &release, where};
}

struct SimAllocator final : public c10::DeviceAllocator {
  c10::DataPtr allocate(size_t nbytes) override {
    return allocate_on_current(nbytes);
  }
  void copy_data(void* target, const void* source, size_t nbytes) const override {
    default_copy_data(target, source, nbytes);
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t = {0, 0}) override {
    for (auto& device : devices()) {
      std::lock_guard<std::mutex> lock(device.mutex);
      drop_cache(device);
    }
  }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex index) override {
    std::lock_guard<std::mutex> lock(devices().at(index).mutex);
    return devices()[index].stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex index) override {
    auto& device = devices().at(index);
    std::lock_guard<std::mutex> lock(device.mutex);
    for (auto* each : counters(device)) {
      (*each)[0].allocated = 0;
      (*each)[0].freed = 0;
    }
  }
  void resetPeakStats(c10::DeviceIndex index) override {
    auto& device = devices().at(index);
    std::lock_guard<std::mutex> lock(device.mutex);
    for (auto* each : counters(device)) {
      (*each)[0].peak = (*each)[0].current;
    }
  }
  // Not marked override: torch before 2.10 has no such method.
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex index) {
    auto& device = devices().at(index);
    std::lock_guard<std::mutex> lock(device.mutex);
    const size_t total = quirks().memory_bytes;
    return {total - std::min(total, device.reserved_bytes()), total};
  }

 private:
  using Counter = decltype(c10::CachingDeviceAllocator::DeviceStats::allocation);

  static std::vector<Counter*> counters(Device& device) {
    auto& stats = device.stats;
    return {&stats.allocation,     &stats.segment,      &stats.active,         &stats.allocated_bytes,
            &stats.reserved_bytes, &stats.active_bytes, &stats.requested_bytes};
  }
};

// What older vendor packages register: no statistics, so torch.accelerator's memory calls raise.
struct PlainAllocator final : public c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    return allocate_on_current(nbytes);
  }
  void copy_data(void* target, const void* source, size_t nbytes) const override {
    default_copy_data(target, source, nbytes);
  }
};

const bool allocator_is_registered = [] {
  c10::SetAllocator(c10::DeviceType::PrivateUse1, device_allocator());
  return true;
}();

}  // namespace

c10::Allocator* device_allocator() {
  static auto* chosen = quirks().no_memory_stats
      ? static_cast<c10::Allocator*>(new PlainAllocator())
      : static_cast<c10::Allocator*>(new SimAllocator());
  return chosen;
}

void resize_storage(c10::StorageImpl* storage, size_t nbytes) {
  const c10::DeviceGuard guard(storage->device());
  auto fresh = device_allocator()->allocate(nbytes);
  if (const size_t kept = std::min(nbytes, storage->nbytes()); kept > 0) {
    std::memcpy(fresh.mutable_get(), storage->data(), kept);
  }
  storage->set_data_ptr_noswap(std::move(fresh));
  storage->set_nbytes(nbytes);
}

}  // namespace simdev
