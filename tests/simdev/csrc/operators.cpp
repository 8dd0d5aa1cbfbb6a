// Kernels of the simulated device: memory, views, copies and convolution; the rest falls back.
#include "fallback.h"
#include "runtime.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

namespace simdev {
namespace {

using at::Tensor;
using c10::IntArrayRef;
using c10::ScalarType;

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

ScalarType checked_dtype(std::optional<ScalarType> dtype) {
  const auto chosen = dtype.value_or(c10::typeMetaToScalarType(c10::get_default_dtype()));
  check_dtype(chosen);
  return chosen;
}

Tensor empty(
    IntArrayRef size, std::optional<ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<c10::Device> device, std::optional<bool>,
    std::optional<c10::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(
      size, device_allocator(), kKeys, checked_dtype(dtype), format);
}

Tensor empty_strided(
    IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> dtype,
    std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      size, stride, device_allocator(), kKeys, checked_dtype(dtype));
}

const Tensor& resize(
    const Tensor& self, IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  if (format.has_value() && *format != c10::MemoryFormat::Preserve) {
    impl->empty_tensor_restride(*format);
  }
  const size_t needed = at::detail::computeStorageNbytes(
      self.sizes(), self.strides(), self.itemsize(), self.storage_offset());
  if (needed > self.storage().nbytes()) {
    resize_storage(self.storage().unsafeGetStorageImpl(), needed);
  }
  return self;
}

Tensor& set_storage_at(
    Tensor& self, c10::Storage source, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  if (stride.empty() && !size.empty()) {
    impl->set_storage_offset(offset);
    impl->set_sizes_contiguous(size);
  } else {
    impl->set_sizes_and_strides(size, stride, offset);
  }
  return self;
}

Tensor& set_storage(Tensor& self, c10::Storage source) {
  const auto count = static_cast<int64_t>(source.nbytes() / self.itemsize());
  return set_storage_at(self, std::move(source), 0, {count}, {1});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_storage_at(
      self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

Tensor& set_empty(Tensor& self) {
  const c10::DeviceGuard guard(self.device());
  c10::Storage none(
      c10::Storage::use_byte_size_t(), 0, device_allocator()->allocate(0), device_allocator(),
      /*resizable=*/true);
  return set_storage_at(self, std::move(none), 0, {0}, {1});
}

void check_devices(const Tensor& self, const Tensor& target) {
  for (const auto& each : {self, target}) {
    if (each.device().is_privateuseone()) {
      check_device(each.device().index());
      check_dtype(each.scalar_type());
    }
  }
}

Tensor copy_from(const Tensor& self, const Tensor& target, bool is_non_blocking) {
  check_devices(self, target);
  auto into = cpu_alias(target);
  into.copy_(cpu_alias(self));
  const bool is_to_host = target.device().is_cpu();
  const auto index = (is_to_host ? self : target).device().index();
  enqueue_operator(index);
  if (is_to_host && !is_non_blocking) {
    wait_until(idle_at(index));
  }
  return target;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& target) {
  target.resize_(self.sizes());
  return copy_from(self, target, false);
}

void record_stream(Tensor&, c10::Stream) {}

Tensor convolution(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
    IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, bool transposed,
    IntArrayRef output_padding, int64_t groups) {
  check_devices(input, weight);
  const auto result = at::convolution(
      cpu_alias(input), cpu_alias(weight),
      bias.has_value() ? std::make_optional(cpu_alias(*bias)) : std::nullopt, stride, padding,
      dilation, transposed, output_padding, groups);
  enqueue_operator(input.device().index());
  return to_device(result, input.device().index());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad_output, const Tensor& input, const Tensor& weight, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding,
    int64_t groups, std::array<bool, 3> output_mask) {
  check_devices(grad_output, weight);
  const int64_t bias_size = transposed ? weight.size(1) * groups : weight.size(0);
  const auto grads = at::convolution_backward(
      cpu_alias(grad_output), cpu_alias(input), cpu_alias(weight), IntArrayRef({bias_size}),
      stride, padding, dilation, transposed, output_padding, groups, output_mask);
  const auto index = input.device().index();
  enqueue_operator(index);
  const auto moved = [index](const Tensor& each) {
    return each.defined() ? to_device(each, index) : Tensor();
  };
  return {moved(std::get<0>(grads)), moved(std::get<1>(grads)), moved(std::get<2>(grads))};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("resize_", TORCH_FN(resize));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("set_", TORCH_FN(set_empty));
  m.impl("set_.source_Tensor", TORCH_FN(set_tensor));
  m.impl("set_.source_Storage", TORCH_FN(set_storage));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage_at));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("record_stream", TORCH_FN(record_stream));
  m.impl("convolution_overrideable", TORCH_FN(convolution));
  m.impl("convolution_backward_overrideable", TORCH_FN(convolution_backward));
  // These have a composite kernel that would win over the fallback and round differently.
  for (const char* name : {"native_layer_norm", "native_group_norm"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  }
}

// Copying is how torch resolves these two bits: resolving them before copying would never end.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, Negative, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

}  // namespace simdev
