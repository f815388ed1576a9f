// A device named "emulated" whose memory is the host's.
//
// Tensors on it behave as on a GPU: operations refuse tensors of the host beside them,
// `numpy()` refuses them, and generators are of one device. Every operation runs the
// kernel of the CPU on the same memory. What would make the host wait is counted.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <set>

namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
template <typename T>
using Maybe = std::optional<T>;

constexpr auto kKind = c10::DeviceType::PrivateUse1;
const c10::Device kDevice(kKind, 0);
int64_t waits = 0;

// -- memory ---------------------------------------------------------------------------
struct HostMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = n ? std::malloc(n) : nullptr;
    return {data, data, &std::free, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t n) const override {
    std::memcpy(to, from, n);
  }
};

HostMemory memory;
REGISTER_ALLOCATOR(kKind, &memory);

void grow(const c10::Storage& storage, size_t n) {
  auto data = memory.allocate(n);
  std::memcpy(data.get(), storage.data(), std::min(n, storage.nbytes()));
  storage.unsafeGetStorageImpl()->set_data_ptr(std::move(data));
  storage.unsafeGetStorageImpl()->set_nbytes(n);
}

// -- one device, one stream, work that is done at once --------------------------------
struct Guard final : c10::impl::DeviceGuardImplInterface {
  const c10::Stream stream{c10::Stream::DEFAULT, kDevice};
  c10::DeviceType type() const override { return kKind; }
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const noexcept override { return stream; }
  c10::Stream getDefaultStream(c10::Device) const override { return stream; }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  // The backward pass marks where its streams meet.
  void record(void**, const c10::Stream&, c10::DeviceIndex,
              c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// -- generators -----------------------------------------------------------------------
struct Generator final : c10::GeneratorImpl {
  at::Generator host = at::detail::createCPUGenerator();

  Generator()
      : GeneratorImpl(kDevice, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}
  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  // A GPU counts its draws; here the state says it all.
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_state(const c10::TensorImpl& state) override {
    host.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host.unsafeGetGeneratorImpl()->get_state();
  }
  Generator* clone_impl() const override {
    auto* copy = new Generator();
    copy->host = host.clone();
    return copy;
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static const at::Generator generator = at::make_generator<Generator>();
    return generator;
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<Generator>();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t n) const override {
    grow(storage, n);
  }
};
const bool registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  return true;
}();

// -- the same memory, seen from the host and from the device --------------------------
bool is_ours(const Tensor& t) { return t.defined() && t.device().type() == kKind; }

Tensor on_host(const Tensor& t) {
  if (!is_ours(t)) return t;
  auto options = t.options().device(at::kCPU);
  // Without memory of its own it can be resized, as `out=` asks for.
  if (t.numel() == 0) return at::empty(t.sizes(), options);
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), [t](void*) {}, options);
}

Tensor on_device(const Tensor& t) {
  if (!t.defined() || is_ours(t)) return t;
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), [t](void*) {},
                       t.options().device(kDevice), kDevice);
}

// -- every operation without a kernel of its own --------------------------------------
// On a GPU too, an index may lie on the host.
const std::set<std::string> kMixing = {"aten::index", "aten::index_put_",
                                       "aten::_index_put_impl_"};
// Their result, or its size, has to be known to the host.
const std::set<std::string> kWaiting = {"aten::nonzero", "aten::masked_select",
                                        "aten::equal",   "aten::is_nonzero",
                                        "aten::_unique2"};

struct Arguments {
  std::string name;
  bool ours = false, others = false;

  Tensor taken(const Tensor& t) {
    ours |= is_ours(t);
    others |= t.defined() && t.device().is_cpu() && t.dim() > 0;
    waits += name == "aten::index" && t.defined() && t.scalar_type() == at::kBool;
    return on_host(t);
  }
  c10::IValue taken(const c10::IValue& value) {
    if (value.isTensor()) return taken(value.toTensor());
    if (value.isTensorList()) {
      std::vector<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(taken(t));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<Maybe<Tensor>> list;
      for (const Maybe<Tensor> t : value.toOptionalTensorList())
        list.push_back(t ? Maybe<Tensor>(taken(*t)) : t);
      return list;
    }
    if (value.isGenerator()) {
      auto generator = value.toGenerator();
      TORCH_CHECK(generator.device() == kDevice, name, ": the generator is on ",
                  generator.device(), ", the tensors are on ", kDevice);
      return static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->host;
    }
    return value.isDevice() ? c10::IValue(c10::Device(at::kCPU)) : value;
  }
};

void give_back(c10::IValue& result, const Tensor& written) {
  if (result.isTensor() && written.defined()) {
    const Tensor found = result.toTensor();
    if (found.data_ptr() != written.data_ptr() || found.sizes() != written.sizes()) {
      written.resize_(found.sizes());
      on_host(written).copy_(found);
    }
    result = written;
  } else if (result.isTensor()) {
    result = on_device(result.toTensor());
  } else if (result.isTensorList()) {
    std::vector<Tensor> list;
    for (const Tensor& t : result.toTensorVector()) list.push_back(on_device(t));
    result = list;
  }
}

void run_on_host(const c10::OperatorHandle& op, c10::Stack* stack) {
  const auto& schema = op.schema();
  const size_t n = schema.arguments().size(), m = schema.returns().size();
  const std::vector<c10::IValue> given(stack->end() - n, stack->end());
  Arguments arguments{schema.name()};
  for (size_t i = 0; i < n; ++i)
    (*stack)[stack->size() - n + i] = arguments.taken(given[i]);
  TORCH_CHECK(!(arguments.ours && arguments.others) || kMixing.count(schema.name()),
              schema.name(), ": some tensors are on ", kDevice, " and some on the cpu");
  waits += kWaiting.count(schema.name());
  op.callBoxed(stack);
  for (size_t j = 0; j < m; ++j) {
    const auto* alias = schema.returns()[j].alias_info();
    Tensor written;
    for (size_t i = 0; i < n && alias && alias->isWrite(); ++i) {
      const auto* own = schema.arguments()[i].alias_info();
      if (own && *own == *alias && given[i].isTensor()) written = given[i].toTensor();
    }
    give_back((*stack)[stack->size() - m + j], written);
  }
}

// -- kernels that make tensors, look at them, or cross the border ---------------------
auto kOurs = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);

Tensor make_empty(SymIntArrayRef size, Maybe<at::ScalarType> dtype, Maybe<at::Layout>,
            Maybe<at::Device>, Maybe<bool>, Maybe<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, kOurs,
                                   c10::dtype_or_default(dtype), format);
}

Tensor make_strided(SymIntArrayRef size, SymIntArrayRef stride,
                    Maybe<at::ScalarType> dtype, Maybe<at::Layout>, Maybe<at::Device>,
                    Maybe<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory, kOurs,
      c10::dtype_or_default(dtype));
}

Tensor with_strides(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride,
               Maybe<SymInt> offset) {
  Maybe<int64_t> start;
  if (offset) start = offset->expect_int();
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size),
                                           C10_AS_INTARRAYREF_SLOW(stride), start);
}

Tensor reshaped(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride) {
  return with_strides(self, size, stride, std::nullopt);
}

Tensor viewed(const Tensor& self, SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

const Tensor& resize(const Tensor& self, SymIntArrayRef size,
                      Maybe<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t n = (impl->numel() + impl->storage_offset()) * impl->itemsize();
  if (n > impl->unsafe_storage().nbytes()) grow(impl->unsafe_storage(), n);
  return self;
}

Tensor& reset(Tensor& self, at::Storage storage, SymInt offset, SymIntArrayRef size,
              SymIntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(storage);
  impl->set_storage_offset(offset.expect_int());
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size),
                              C10_AS_INTARRAYREF_SLOW(stride));
  return self;
}

Tensor& refilled(Tensor& self, at::Storage storage) {
  const auto n = int64_t(storage.nbytes() / self.itemsize());
  return reset(self, std::move(storage), 0, {SymInt(n)}, {SymInt(1)});
}

Tensor copied(const Tensor& from, const Tensor& to, bool) {
  waits += is_ours(from) != is_ours(to);
  on_host(to).copy_(on_host(from));
  return to;
}

Tensor copied_and_resized(const Tensor& from, const Tensor& to) {
  to.resize_(from.sizes());
  return copied(from, to, false);
}

at::Scalar value_of(const Tensor& self) {
  ++waits;
  return on_host(self).item();
}

int64_t count_of_waits() { return waits; }

}  // namespace

TORCH_LIBRARY(emulated, m) { m.def("waits", count_of_waits); }

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", make_empty);
  m.impl("empty_strided", make_strided);
  m.impl("as_strided", with_strides);
  m.impl("_reshape_alias", reshaped);
  m.impl("view", viewed);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage", refilled);
  m.impl("set_.source_Storage_storage_offset", reset);
  m.impl("_copy_from", copied);
  m.impl("_copy_from_and_resize", copied_and_resized);
  m.impl("_local_scalar_dense", value_of);
}
