// Pinned host memory: ordinary memory whose addresses are remembered.
#include "runtime.h"

#include <ATen/core/CachingHostAllocator.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>

namespace simdev {
namespace {

std::mutex pinned_mutex;
std::map<const void*, size_t> pinned_blocks;

void release_pinned(void* data) {
  {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned_blocks.erase(data);
  }
  std::free(data);
}

struct PinnedAllocator final : public at::HostAllocator {
  c10::DataPtr allocate(size_t nbytes) override {
    void* data = nullptr;
    TORCH_CHECK(posix_memalign(&data, 64, std::max(nbytes, size_t(64))) == 0, "host memory ran out");
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned_blocks[data] = nbytes;
    return {data, data, &release_pinned, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* target, const void* source, size_t nbytes) const override {
    default_copy_data(target, source, nbytes);
  }
  bool record_event(void*, void*, c10::Stream) override {
    return true;
  }
  void empty_cache() override {}
  at::HostStats get_stats() override {
    return {};
  }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};

PinnedAllocator* only_allocator() {
  static auto* only = new PinnedAllocator();
  return only;
}

// Without it torch.accelerator.empty_host_cache() follows a null pointer.
const bool host_allocator_is_registered = [] {
  at::setHostAllocator(c10::DeviceType::PrivateUse1, only_allocator());
  return true;
}();

}  // namespace

c10::Allocator* pinned_allocator() {
  return only_allocator();
}

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  auto after = pinned_blocks.upper_bound(data);
  if (after == pinned_blocks.begin()) {
    return false;
  }
  const auto& [start, nbytes] = *std::prev(after);
  return data < static_cast<const char*>(start) + std::max(nbytes, size_t(1));
}

}  // namespace simdev
