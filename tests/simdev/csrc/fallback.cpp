// The boxed fallback: arguments become CPU aliases of the same memory, results are moved back.
//
// Aliases instead of copies, because some operators write to arguments without saying so in their
// schema (batch norm's running statistics): a copying fallback silently loses those writes.
// As on real hardware, mixing devices in one operator raises.
#include "fallback.h"

#include "runtime.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/mul.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_set>
#include <vector>

namespace simdev {
namespace {

using c10::IValue;

struct Pair {
  at::Tensor original;
  at::Tensor alias;
};

// Conjugation and negation that torch has noted on the tensor but not yet carried out.
at::Tensor with_lazy_bits(at::Tensor tensor, const at::Tensor& like) {
  tensor._set_conj(like.is_conj());
  tensor._set_neg(like.is_neg());
  return tensor;
}

at::Tensor alias_over(const at::Tensor& tensor, const c10::Storage& storage) {
  auto alias = at::detail::make_tensor_base<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  auto* impl = alias.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    impl->set_wrapped_number(true);
  }
  return with_lazy_bits(at::Tensor(std::move(alias)), tensor);
}

c10::Storage cpu_storage_over(const c10::Storage& storage) {
  auto data = c10::DataPtr(storage.mutable_data(), c10::Device(c10::DeviceType::CPU));
  return c10::Storage(
      c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), c10::GetCPUAllocator(),
      /*resizable=*/true);
}

// Operators that take host tensors beside device tensors on real hardware too.
bool may_mix_devices(const std::string& name) {
  static const std::unordered_set<std::string> names = {
      "aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put",
      "aten::_unsafe_index", "aten::_unsafe_index_put", "aten::_pack_padded_sequence"};
  return names.count(name) > 0;
}

bool is_matmul(const std::string& name) {
  static const std::unordered_set<std::string> names = {
      "aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::mv", "aten::addmv",
      "aten::dot"};
  return names.count(name) > 0;
}

// One call: which tensors were replaced, and on which device the results belong.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op) {}

  void lower_arguments(torch::jit::Stack* stack) {
    const size_t count = op_.schema().arguments().size();
    for (size_t position = stack->size() - count; position < stack->size(); ++position) {
      (*stack)[position] = lower((*stack)[position]);
    }
    TORCH_CHECK(
        !saw_host_tensor_ || index_ < 0 || may_mix_devices(op_.schema().name()),
        "Expected all tensors to be on the same device, but found at least two devices, simdev:",
        int(index_), " and cpu! (when running ", op_.schema().name(), ")");
  }

  void raise_results(torch::jit::Stack* stack) {
    for (const auto& pair : pairs_) {
      follow_resize(pair);
    }
    if (index_ < 0) {
      return;
    }
    enqueue_operator(index_);
    const size_t count = op_.schema().returns().size();
    for (size_t position = stack->size() - count; position < stack->size(); ++position) {
      // A number for the host exists only once the device is done.
      if (!(*stack)[position].isTensor() && !(*stack)[position].isTensorList()) {
        wait_until(idle_at(index_));
      }
      (*stack)[position] = raise((*stack)[position]);
    }
  }

 private:
  IValue lower(const IValue& value) {
    if (value.isTensor()) {
      return lower_tensor(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> lowered;
      for (const at::Tensor& each : value.toTensorVector()) {
        lowered.push_back(lower_tensor(each));
      }
      return lowered;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> lowered;
      for (const std::optional<at::Tensor>& each : value.toOptionalTensorVector()) {
        lowered.push_back(each ? std::make_optional(lower_tensor(*each)) : std::nullopt);
      }
      return lowered;
    }
    if (value.isDevice() && value.toDevice().is_privateuseone()) {
      const auto device = value.toDevice();
      index_ = device.has_index() ? device.index() : current_device();
      return c10::Device(c10::DeviceType::CPU);
    }
    return value;
  }

  at::Tensor lower_tensor(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.device().is_privateuseone()) {
      saw_host_tensor_ |= tensor.defined() && tensor.dim() > 0;
      return tensor;
    }
    TORCH_CHECK(
        index_ < 0 || index_ == tensor.device().index(),
        "Expected all tensors to be on the same device, but found at least two devices, simdev:",
        int(index_), " and ", tensor.device(), "! (when running ", op_.schema().name(), ")");
    index_ = tensor.device().index();
    check_device(index_);
    check_dtype(tensor.scalar_type());
    for (const auto& pair : pairs_) {
      if (pair.original.is_same(tensor)) {
        return pair.alias;
      }
    }
    pairs_.push_back({tensor, alias_over(tensor, shared_storage(tensor))});
    return pairs_.back().alias;
  }

  // Aliases of one storage share one CPU storage, so that overlap checks still see it.
  c10::Storage shared_storage(const at::Tensor& tensor) {
    for (const auto& pair : pairs_) {
      if (pair.original.storage().is_alias_of(tensor.storage())) {
        return pair.alias.storage();
      }
    }
    return cpu_storage_over(tensor.storage());
  }

  // An `out=` argument may have been given another shape or more memory.
  static void follow_resize(const Pair& pair) {
    auto* impl = pair.original.unsafeGetTensorImpl();
    const auto& storage = pair.original.storage();
    const size_t nbytes = pair.alias.storage().nbytes();
    if (pair.alias.storage().data() != storage.data() && nbytes > 0) {
      resize_storage(storage.unsafeGetStorageImpl(), nbytes);
      std::memcpy(storage.mutable_data(), pair.alias.storage().data(), nbytes);
    }
    if (pair.alias.sizes() != pair.original.sizes() ||
        pair.alias.strides() != pair.original.strides()) {
      impl->set_sizes_and_strides(
          pair.alias.sizes(), pair.alias.strides(), pair.alias.storage_offset());
    }
  }

  IValue raise(const IValue& value) {
    if (value.isTensor()) {
      return raise_tensor(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> raised;
      for (const at::Tensor& each : value.toTensorVector()) {
        raised.push_back(raise_tensor(each));
      }
      return raised;
    }
    return value;
  }

  at::Tensor raise_tensor(const at::Tensor& result) {
    if (!result.defined() || !result.device().is_cpu()) {
      return result;
    }
    for (const auto& pair : pairs_) {
      if (pair.alias.is_same(result)) {
        return spoil(pair.original);
      }
    }
    for (const auto& pair : pairs_) {
      if (pair.alias.storage().is_alias_of(result.storage())) {
        return view_of(pair.original, result);
      }
    }
    return spoil(to_device(result, index_));
  }

  static at::Tensor view_of(const at::Tensor& base, const at::Tensor& view) {
    auto result = at::detail::make_tensor_base<c10::TensorImpl>(
        c10::Storage(base.storage()), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
        view.dtype());
    result.unsafeGetTensorImpl()->set_sizes_and_strides(
        view.sizes(), view.strides(), view.storage_offset());
    return with_lazy_bits(at::Tensor(std::move(result)), view);
  }

  at::Tensor spoil(const at::Tensor& result) const {
    if (quirks().wrong_fp16 && result.scalar_type() == c10::kHalf &&
        is_matmul(op_.schema().name())) {
      auto alias = cpu_alias(result);
      at::mul_out(alias, alias, at::Scalar(1.125));
    }
    return result;
  }

  const c10::OperatorHandle& op_;
  std::vector<Pair> pairs_;
  c10::DeviceIndex index_ = -1;
  bool saw_host_tensor_ = false;
};

}  // namespace

at::Tensor cpu_alias(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.device().is_privateuseone()) {
    return tensor;
  }
  return alias_over(tensor, cpu_storage_over(tensor.storage()));
}

at::Tensor to_device(const at::Tensor& cpu, c10::DeviceIndex index) {
  check_dtype(cpu.scalar_type());
  const c10::DeviceGuard guard(c10::Device(c10::DeviceType::PrivateUse1, index));
  auto result = at::Tensor(at::detail::empty_strided_generic(
      cpu.sizes(), cpu.strides(), device_allocator(),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), cpu.scalar_type()));
  // The result spans exactly what the strides reach, the source may lie inside a larger storage.
  if (const size_t nbytes = result.storage().nbytes(); nbytes > 0) {
    std::memcpy(result.storage().mutable_data(), cpu.const_data_ptr(), nbytes);
  }
  if (cpu.unsafeGetTensorImpl()->is_wrapped_number()) {
    result.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  return result;
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call call(op);
  call.lower_arguments(stack);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.raise_results(stack);
}

}  // namespace simdev
