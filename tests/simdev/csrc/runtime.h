// The simulated device: how many there are, which is current, and which vendor quirks are on.
//
// Two devices live in host memory and run every operator on the CPU. They exist so that code written
// for "any accelerator" can be tested where there is none. Operators are done when they return, unless
// the quirk queue_us=N gives each one N microseconds of device time, which then pass in a queue.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/StorageImpl.h>

#include <chrono>
#include <cstddef>

namespace simdev {

constexpr c10::DeviceIndex kNumDevices = 2;

struct Quirks {
  bool no_float64 = false;
  bool no_bf16 = false;
  bool wrong_fp16 = false;
  bool no_memory_stats = false;
  bool no_events = false;
  bool fail_device_1 = false;
  bool no_pin_memory = false;
  size_t queue_us = 0;
  size_t memory_bytes = size_t(16) << 30;
};

const Quirks& quirks();

c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);

using Clock = std::chrono::steady_clock;

// The device's only stream: when it will be idle, one operator more, and waiting for a moment.
Clock::time_point idle_at(c10::DeviceIndex index);
void enqueue_operator(c10::DeviceIndex index);
void wait_until(Clock::time_point moment);

// Raises where a quirk says that this device or this dtype does not work.
void check_device(c10::DeviceIndex index);
void check_dtype(c10::ScalarType dtype);

c10::Allocator* device_allocator();
c10::Allocator* pinned_allocator();
bool is_pinned(const void* data);

// Give `storage` memory of another size, keeping what fits.
void resize_storage(c10::StorageImpl* storage, size_t nbytes);

}  // namespace simdev
