// Running an operator on the CPU on behalf of the simulated device.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace simdev {

// A CPU tensor over the same memory; what is written to it is written to `tensor`.
at::Tensor cpu_alias(const at::Tensor& tensor);

// A new tensor on device `index` with the values and strides of a CPU tensor.
at::Tensor to_device(const at::Tensor& cpu, c10::DeviceIndex index);

// The boxed fallback: every operator without a kernel of its own ends here.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace simdev
