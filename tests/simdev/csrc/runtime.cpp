// Quirks, the current device, and the queue in which simulated device time passes.
#include "runtime.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>

namespace simdev {
namespace {

Quirks parse_quirks() {
  Quirks found;
  const char* text = std::getenv("SIMDEV_QUIRKS");
  std::stringstream list(text == nullptr ? "" : text);
  for (std::string item; std::getline(list, item, ',');) {
    found.no_float64 |= item == "no_float64";
    found.no_bf16 |= item == "no_bf16";
    found.wrong_fp16 |= item == "wrong_fp16";
    found.no_memory_stats |= item == "no_memory_stats";
    found.no_events |= item == "no_events";
    found.fail_device_1 |= item == "fail_device_1";
    found.no_pin_memory |= item == "no_pin_memory";
    const auto equals = item.find('=');
    if (item.rfind("oom_above=", 0) == 0) {
      found.memory_bytes = std::stoull(item.substr(equals + 1));
    }
    if (item.rfind("queue_us=", 0) == 0) {
      found.queue_us = std::stoull(item.substr(equals + 1));
    }
  }
  return found;
}

thread_local c10::DeviceIndex current_index = 0;

std::mutex queue_mutex;
std::array<Clock::time_point, kNumDevices> queue_ends;

}  // namespace

const Quirks& quirks() {
  static const Quirks parsed = parse_quirks();
  return parsed;
}

c10::DeviceIndex current_device() {
  return current_index;
}

void set_current_device(c10::DeviceIndex index) {
  TORCH_CHECK(
      index >= 0 && index < kNumDevices,
      "simdev error 101: invalid device ordinal ", int(index), ", there are ", int(kNumDevices));
  current_index = index;
}

void check_device(c10::DeviceIndex index) {
  TORCH_CHECK(
      !(quirks().fail_device_1 && index == 1), "simdev error 507: device 1 is not healthy");
}

void check_dtype(c10::ScalarType dtype) {
  TORCH_CHECK_TYPE(
      !(quirks().no_float64 && (dtype == c10::kDouble || dtype == c10::kComplexDouble)),
      "simdev does not support float64. Please use float32 instead.");
  TORCH_CHECK(
      !(quirks().no_bf16 && dtype == c10::kBFloat16),
      "simdev error 161002: not implemented for DT_BFLOAT16");
}

Clock::time_point idle_at(c10::DeviceIndex index) {
  std::lock_guard<std::mutex> lock(queue_mutex);
  return std::max(queue_ends.at(index), Clock::now());
}

void enqueue_operator(c10::DeviceIndex index) {
  if (quirks().queue_us > 0) {
    std::lock_guard<std::mutex> lock(queue_mutex);
    queue_ends.at(index) = std::max(queue_ends.at(index), Clock::now()) +
        std::chrono::microseconds(quirks().queue_us);
  }
}

void wait_until(Clock::time_point moment) {
  if (moment > Clock::now()) {
    std::this_thread::sleep_until(moment);
  }
}

}  // namespace simdev
