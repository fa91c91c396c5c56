// The fibers behind cuda_runtime.h, and the other functions of CUDA and torch that the operators call.
#include <cuda/matrix/tma.h>
#include <cuda_runtime.h>
#include <ucontext.h>

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastkan {
alignas(1024) unsigned char fastkan_shared[emulated::kMaxShared90];  // as declared in the kernels
}
using fastkan::fastkan_shared;

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

namespace {

enum class State { ready, waits_for_warp, waits_for_block, waits_for_barrier, waits_for_named_barrier, done };

struct Copy {
  void* to;
  const void* from;  // nullptr: zeros
};

// An mbarrier in shared memory; `phase` counts completed phases.
struct BarrierState {
  int arrivals, missing;
  int64_t bytes;  // expected and not yet written
  unsigned phase;
};

struct TmaCopy {
  unsigned char* to;
  fastkan::TensorLayout layout;
  int at[fastkan::TensorLayout::kDimensions];
  const void* barrier;
};

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t begin;
  jmp_buf here;
  bool started;
  State state;
  const char* operation;
  const void* barrier;                   // being waited for
  unsigned parity, which, expected;      // of the mbarrier; named barrier and its thread count
  std::vector<Copy> copies;              // started, no group yet
  std::deque<std::vector<Copy>> groups;  // committed, the oldest first
  bool copies_fenced, registers_fenced;  // copies, and registers, are fenced for wgmma
  std::vector<Product> products;         // started
};

constexpr size_t kStack = 128 << 10;

std::vector<Fiber> fibers;
std::vector<uint64_t> given[2];  // values of the block's threads, double-buffered
std::vector<Fragments> fragments[2];
std::vector<unsigned> exchanges;
jmp_buf scheduler;
unsigned current, random_state;
void (*kernel)(const void*);
const void* context;
std::string failure;
size_t shared_bytes;
std::map<const void*, int> shared_allowed;
std::map<const void*, BarrierState> barriers;
std::deque<TmaCopy> tma_copies;  // in flight

// setjmp instead of swapcontext, which makes a system call.
void back_to_scheduler() {
  if (!_setjmp(fibers[current].here)) _longjmp(scheduler, 1);
}

void fiber_main() {
  kernel(context);
  fibers[current].state = State::done;
  _longjmp(scheduler, 1);
}

void resume(unsigned t) {
  Fiber& f = fibers[t];
  current = t;
  threadIdx = dim3(t);
  if (_setjmp(scheduler)) return;
  if (f.started) _longjmp(f.here, 1);
  f.started = true;
  setcontext(&f.begin);
}

void prepare(unsigned count) {
  while (fibers.size() < count) {
    fibers.emplace_back();
    fibers.back().stack = std::make_unique<char[]>(kStack);
  }
  for (unsigned t = 0; t < count; ++t) {
    Fiber& f = fibers[t];
    f.started = false;
    f.state = State::ready;
    f.copies.clear();
    f.groups.clear();
    f.products.clear();
    f.copies_fenced = true;
    f.registers_fenced = false;
    f.which = 0;
    getcontext(&f.begin);
    f.begin.uc_stack.ss_sp = f.stack.get();
    f.begin.uc_stack.ss_size = kStack;
    f.begin.uc_link = nullptr;
    makecontext(&f.begin, fiber_main, 0);
  }
  for (auto& buffer : given) buffer.assign(count, 0);
  for (auto& buffer : fragments) buffer.resize(count);
  exchanges.assign(count, 0);
}

unsigned count_of(State state, unsigned from, unsigned to) {
  unsigned n = 0;
  for (unsigned t = from; t < to; ++t) n += fibers[t].state == state;
  return n;
}

void release(State state, unsigned from, unsigned to) {
  for (unsigned t = from; t < to; ++t)
    if (fibers[t].state == state) fibers[t].state = State::ready;
}

void end_phase(BarrierState& barrier) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  barrier.missing = barrier.arrivals;
  ++barrier.phase;
}

BarrierState& barrier_at(const void* address) {
  const auto found = barriers.find(address);
  if (found == barriers.end()) fail("no barrier was initialised there");
  return found->second;
}

// Writes a tile with 128-byte swizzle, zeros outside of the tensor.
void complete(const TmaCopy& copy) {
  const fastkan::TensorLayout& b = copy.layout;
  unsigned straight = 0;
  const unsigned begin = shared_offset(copy.to);
  int d[4];
  for (d[3] = 0; d[3] < b.tile[3]; ++d[3])
    for (d[2] = 0; d[2] < b.tile[2]; ++d[2])
      for (d[1] = 0; d[1] < b.tile[1]; ++d[1])
        for (d[0] = 0; d[0] < b.tile[0]; ++d[0], straight += 2) {
          const unsigned to = begin + straight;
          int64_t from = 0;
          bool there = true;
          for (int k = 0; k < 4; ++k) {
            const int64_t at = copy.at[k] + d[k];
            there = there && at >= 0 && at < b.size[k];
            from += at * b.stride[k];
          }
          const uint16_t number = there ? static_cast<const uint16_t*>(b.data)[from] : 0;
          memcpy(fastkan_shared + (to ^ (to >> 7 & 7) << 4), &number, 2);
        }
  BarrierState& barrier = barrier_at(copy.barrier);
  barrier.bytes -= straight;
  end_phase(barrier);
}

// Completes some of the copies in flight, in random order; all of them if `all`.
void complete_tma_copies(bool all) {
  while (!tma_copies.empty()) {
    random_state = random_state * 1664525 + 1013904223;
    if (!all && random_state >> 30 != 0) return;
    const size_t which = (random_state >> 8) % tma_copies.size();
    complete(tma_copies[which]);
    tma_copies.erase(tma_copies.begin() + static_cast<std::ptrdiff_t>(which));
  }
}

// Resumes fibers whose mbarrier phase has ended or whose named barrier is complete.
bool release_from_barriers(unsigned count) {
  bool any = false;
  unsigned together[16] = {};
  for (unsigned t = 0; t < count; ++t) together[fibers[t].which] += fibers[t].state == State::waits_for_named_barrier;
  for (unsigned t = 0; t < count; ++t) {
    Fiber& f = fibers[t];
    const bool ended = f.state == State::waits_for_barrier && (barrier_at(f.barrier).phase & 1) != f.parity;
    if (!ended && !(f.state == State::waits_for_named_barrier && together[f.which] == f.expected)) continue;
    f.state = State::ready;
    any = true;
  }
  return any;
}

// Resumes fibers whose warp or block has arrived completely; returns whether there were any.
bool release_waiting(unsigned count) {
  bool any = false;
  for (unsigned w = 0; w < count; w += kWarp) {
    const unsigned end = w + kWarp < count ? w + kWarp : count;
    if (count_of(State::waits_for_warp, w, end) != end - w) continue;
    for (unsigned t = w; t < end; ++t)
      if (strcmp(fibers[t].operation, fibers[w].operation) != 0)
        failure = std::string("a warp is at ") + fibers[w].operation + " and at " + fibers[t].operation;
    release(State::waits_for_warp, w, end);
    any = true;
  }
  any |= release_from_barriers(count);
  if (!any && count_of(State::waits_for_block, 0, count) == count) {
    release(State::waits_for_block, 0, count);
    any = true;
  }
  if (!any && !tma_copies.empty()) {
    complete_tma_copies(true);
    any = true;
  }
  return any;
}

void run_block(unsigned count) {
  memset(fastkan_shared, 0xff, shared_bytes);
  prepare(count);
  barriers.clear();
  tma_copies.clear();
  while (failure.empty() && count_of(State::done, 0, count) != count) {
    random_state = random_state * 1664525 + 1013904223;
    complete_tma_copies(false);
    const unsigned first = (random_state >> 8) % count, step = random_state >> 31 ? 1 : count - 1;
    for (unsigned k = 0, t = first; k < count; ++k, t = (t + step) % count)
      if (fibers[t].state == State::ready) resume(t);
    if (count_of(State::done, 0, count) != count && !release_waiting(count) && failure.empty())
      failure = "threads wait for others that never come";
  }
}

}  // namespace

void fail(const std::string& what) {
  if (failure.empty())
    failure = what + " (block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(threadIdx.x) + ")";
  fibers[current].state = State::done;
  back_to_scheduler();
}

void wait_for_block() {
  fibers[current].state = State::waits_for_block;
  back_to_scheduler();
}

void init_barrier(const void* barrier, int arrivals) { barriers[barrier] = {arrivals, arrivals, 0, 0}; }
void arrive(const void* at, int announced) {
  BarrierState& barrier = barrier_at(at);
  if (barrier.missing == 0) fail("more arrivals at a barrier than it expects");
  barrier.bytes += announced;
  --barrier.missing;
  end_phase(barrier);
}
void wait_for_barrier(const void* barrier, int parity) {
  if ((barrier_at(barrier).phase & 1) != static_cast<unsigned>(parity)) return;
  fibers[current].barrier = barrier;
  fibers[current].parity = static_cast<unsigned>(parity);
  fibers[current].state = State::waits_for_barrier;
  back_to_scheduler();
}
void start_tma_copy(void* shared, const fastkan::TensorLayout& of, const int* at, const void* barrier) {
  expect_aligned(shared, 1024);
  expect_aligned(of.data, 16);
  tma_copies.push_back({static_cast<unsigned char*>(shared), of, {at[0], at[1], at[2], at[3]}, barrier});
}
void named_barrier_sync(int which, unsigned count) {
  if (which < 1 || which > 15) fail("no such barrier");
  fibers[current].which = static_cast<unsigned>(which);
  fibers[current].expected = count;
  fibers[current].state = State::waits_for_named_barrier;
  back_to_scheduler();
}

const uint64_t* exchange(const char* operation, uint64_t value) {
  std::vector<uint64_t>& buffer = given[exchanges[current]++ % 2];
  buffer[current] = value;
  fibers[current].operation = operation;
  fibers[current].state = State::waits_for_warp;
  back_to_scheduler();
  return buffer.data() + current / kWarp * kWarp;
}

const Fragments* all_fragments(const char* operation, const Fragments& mine) {
  std::vector<Fragments>& buffer = fragments[exchanges[current] % 2];
  buffer[current] = mine;
  exchange(operation, 0);
  return buffer.data() + current / kWarp * kWarp;
}

void start_copy(void* to, const void* from, bool there) {
  fibers[current].copies.push_back({to, there ? from : nullptr});
}
void commit_copies() {
  fibers[current].groups.push_back(std::move(fibers[current].copies));
  fibers[current].copies.clear();
}
// Copies that are never waited for are never carried out.
void wait_for_copies(int most) {
  std::deque<std::vector<Copy>>& groups = fibers[current].groups;
  for (; static_cast<int>(groups.size()) > most; groups.pop_front()) {
    fibers[current].copies_fenced = fibers[current].copies_fenced && groups.front().empty();
    for (const Copy& copy : groups.front()) {
      if (copy.from)
        memcpy(copy.to, copy.from, 16);
      else
        memset(copy.to, 0, 16);
    }
  }
}

unsigned shared_offset(const void* shared) {
  return static_cast<unsigned>(static_cast<const unsigned char*>(shared) - fastkan_shared);
}
void fence_for_wgmma() { fibers[current].copies_fenced = true; }
void wgmma_fence() { fibers[current].registers_fenced = true; }
void start_product(const Product& product) {
  if (!fibers[current].copies_fenced) fail("wgmma reads copies that are not fenced for it");
  if (!fibers[current].registers_fenced) fail("wgmma reads registers that are not fenced for it");
  fibers[current].products.push_back(product);
}
void wgmma_wait() {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (const Product& product : fibers[current].products)
    for (int n = 0; n < 16; ++n)
      for (int r = 0; r < 4; ++r)
        for (int k = 0; k < product.depth; ++k)
          product.sums[n][r] +=
              product.left[r / 2][k] * product.number(right_number(product.right, k, 8 * n + lane % 4 * 2 + r % 2));
  fibers[current].products.clear();
  fibers[current].registers_fenced = false;
}
const void* right_number(uint64_t descriptor, int k, int n) {
  const auto field = [&](int bit) { return static_cast<unsigned>(descriptor >> bit & 0x3fff) * 16; };
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0 || field(0) % 1024 != 0)
    fail("a wgmma descriptor has a layout that is not emulated");
  const unsigned straight = field(0) + n / 64 * field(16) + k / 8 * field(32) + k % 8 * 128 + n % 64 * 2;
  return fastkan_shared + (straight ^ (straight >> 7 & 7) << 4);
}

void expect_aligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
    fail("a load of " + std::to_string(bytes) + " bytes is not aligned");
}

void allow_shared(const void* of, int bytes) { shared_allowed[of] = bytes; }
void expect_shared(const void* of, size_t bytes) {
  const auto allowed = shared_allowed.find(of);
  const size_t most = allowed == shared_allowed.end() ? kShared : static_cast<size_t>(allowed->second);
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (bytes > most || bytes > (major == 9 ? kMaxShared90 : kMaxShared))
    throw std::runtime_error("more shared memory than a block has");
}

bool refuses_launches() { return std::getenv("FASTKAN_EMULATED_REFUSES"); }

void run(const cudaLaunchConfig_t& config, void (*body)(const void*), const void* of) {
  if (cudaGetLastError() != cudaSuccess) throw std::runtime_error("the error of an earlier launch was left set");
  if (config.blockDim.x == 0 || config.blockDim.x > 1024) throw std::runtime_error("no such block");
  kernel = body;
  context = of;
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  shared_bytes = config.dynamicSmemBytes;
  failure.clear();
  for (unsigned b = 0; b < config.gridDim.x && failure.empty(); ++b) {
    blockIdx = dim3(b);
    run_block(blockDim.x);
  }
  if (!failure.empty()) throw std::runtime_error(failure);
}

}  // namespace emulated

// FASTKAN_EMULATED_PROCESSORS: number of multiprocessors; few lead to large tiles, many to splits.
// FASTKAN_EMULATED_MAJOR: compute capability. FASTKAN_EMULATED_RATIO: rate of float32 relative to float64.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  struct Setting {
    const char* variable;
    int fallback;
  };
  const Setting setting = which == cudaDevAttrMultiProcessorCount      ? Setting{"FASTKAN_EMULATED_PROCESSORS", 1}
                          : which == cudaDevAttrComputeCapabilityMajor ? Setting{"FASTKAN_EMULATED_MAJOR", 8}
                                                                       : Setting{"FASTKAN_EMULATED_RATIO", 2};
  const char* wanted = std::getenv(setting.variable);
  *value = wanted ? std::atoi(wanted) : setting.fallback;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t) {
  memset(memory, byte, bytes);
  return cudaSuccess;
}

// Replaces torch's functions within this library: the emulated device has no streams and is always current.
extern "C" {
int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
int32_t aoti_torch_create_device_guard(int32_t, void** guard) {
  *guard = nullptr;
  return 0;
}
int32_t aoti_torch_delete_device_guard(void*) { return 0; }
}
