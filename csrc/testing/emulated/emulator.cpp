// The fibers behind cuda_runtime.h, and what else of CUDA and torch the operators call.
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
alignas(1024) unsigned char fastkan_shared[emulated::kMostShared90];  // as the kernels declare it
}
using fastkan::fastkan_shared;

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

namespace {

enum class State { ready, waits_for_warp, waits_for_block, waits_for_barrier, waits_for_some, done };

struct Copy {
  void* to;
  const void* from;  // nullptr: zeros
};

// A barrier in shared memory; `phase` counts those that have ended.
struct BarrierState {
  int arrivals, missing;
  int64_t bytes;  // announced and not there
  unsigned phase;
};

struct Box {
  unsigned char* to;
  fastkan::Boxes boxes;
  int at[fastkan::Boxes::kDimensions];
  const void* barrier;
};

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t begin;
  jmp_buf here;
  bool started;
  State state;
  const char* operation;
  const void* barrier;                   // waited for
  unsigned parity, which, expected;      // of which of the numbered barriers, by how many
  std::vector<Copy> copies;              // started
  std::deque<std::vector<Copy>> groups;  // ended, the oldest first
  bool shown, begun;                     // whether products may read what was copied, and registers
  std::vector<Product> products;         // started
};

constexpr size_t kStack = 128 << 10;

std::vector<Fiber> fibers;
std::vector<uint64_t> given[2];  // by the threads of a block, in turn: one is read while the other is written
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
std::deque<Box> boxes;  // on their way

// Switching by setjmp saves the system call that swapcontext makes.
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
    f.shown = true;
    f.begun = false;
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
  if (found == barriers.end()) fail("no barrier was made there");
  return found->second;
}

// Numbers as the engine lays them, 128 bytes swizzled, zeros beyond the tensor.
void deliver(const Box& box) {
  const fastkan::Boxes& b = box.boxes;
  unsigned straight = 0;
  const unsigned begin = shared_offset(box.to);
  int d[4];
  for (d[3] = 0; d[3] < b.box[3]; ++d[3])
    for (d[2] = 0; d[2] < b.box[2]; ++d[2])
      for (d[1] = 0; d[1] < b.box[1]; ++d[1])
        for (d[0] = 0; d[0] < b.box[0]; ++d[0], straight += 2) {
          const unsigned to = begin + straight;
          int64_t from = 0;
          bool there = true;
          for (int k = 0; k < 4; ++k) {
            const int64_t at = box.at[k] + d[k];
            there = there && at >= 0 && at < b.size[k];
            from += at * b.stride[k];
          }
          const uint16_t number = there ? static_cast<const uint16_t*>(b.data)[from] : 0;
          memcpy(fastkan_shared + (to ^ (to >> 7 & 7) << 4), &number, 2);
        }
  BarrierState& barrier = barrier_at(box.barrier);
  barrier.bytes -= straight;
  end_phase(barrier);
}

// Some of the boxes that are on their way, any order; all of them where `all`.
void deliver_boxes(bool all) {
  while (!boxes.empty()) {
    random_state = random_state * 1664525 + 1013904223;
    if (!all && random_state >> 30 != 0) return;
    const size_t which = (random_state >> 8) % boxes.size();
    deliver(boxes[which]);
    boxes.erase(boxes.begin() + static_cast<std::ptrdiff_t>(which));
  }
}

// Lets those go on whose barrier has ended the phase, or that have come together.
bool release_from_barriers(unsigned count) {
  bool any = false;
  unsigned together[16] = {};
  for (unsigned t = 0; t < count; ++t) together[fibers[t].which] += fibers[t].state == State::waits_for_some;
  for (unsigned t = 0; t < count; ++t) {
    Fiber& f = fibers[t];
    const bool ended = f.state == State::waits_for_barrier && (barrier_at(f.barrier).phase & 1) != f.parity;
    if (!ended && !(f.state == State::waits_for_some && together[f.which] == f.expected)) continue;
    f.state = State::ready;
    any = true;
  }
  return any;
}

// Lets those go on whose warp, or block, has come together; whether there were any.
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
  if (!any && !boxes.empty()) {
    deliver_boxes(true);
    any = true;
  }
  return any;
}

void run_block(unsigned count) {
  memset(fastkan_shared, 0xff, shared_bytes);
  prepare(count);
  barriers.clear();
  boxes.clear();
  while (failure.empty() && count_of(State::done, 0, count) != count) {
    random_state = random_state * 1664525 + 1013904223;
    deliver_boxes(false);
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

void make_barrier(const void* barrier, int arrivals) { barriers[barrier] = {arrivals, arrivals, 0, 0}; }
void arrive(const void* at, int announced) {
  BarrierState& barrier = barrier_at(at);
  if (barrier.missing == 0) fail("more arrive at a barrier than it waits for");
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
void start_box(void* shared, const fastkan::Boxes& of, const int* at, const void* barrier) {
  expect_aligned(shared, 1024);
  expect_aligned(of.data, 16);
  boxes.push_back({static_cast<unsigned char*>(shared), of, {at[0], at[1], at[2], at[3]}, barrier});
}
void wait_for_some(int which, unsigned count) {
  if (which < 1 || which > 15) fail("no such barrier");
  fibers[current].which = static_cast<unsigned>(which);
  fibers[current].expected = count;
  fibers[current].state = State::waits_for_some;
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
void end_copy_group() {
  fibers[current].groups.push_back(std::move(fibers[current].copies));
  fibers[current].copies.clear();
}
// A wait that never comes leaves what was started undone.
void wait_for_copy_groups(int most) {
  std::deque<std::vector<Copy>>& groups = fibers[current].groups;
  for (; static_cast<int>(groups.size()) > most; groups.pop_front()) {
    fibers[current].shown = fibers[current].shown && groups.front().empty();
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
void show_copies() { fibers[current].shown = true; }
void begin_products() { fibers[current].begun = true; }
void start_product(const Product& product) {
  if (!fibers[current].shown) fail("wgmma reads copies that were not shown to it");
  if (!fibers[current].begun) fail("wgmma takes registers that were not shown to it");
  fibers[current].products.push_back(product);
}
void wait_for_products() {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (const Product& product : fibers[current].products)
    for (int n = 0; n < 16; ++n)
      for (int r = 0; r < 4; ++r)
        for (int k = 0; k < product.depth; ++k)
          product.sums[n][r] +=
              product.left[r / 2][k] * product.number(right_number(product.right, k, 8 * n + lane % 4 * 2 + r % 2));
  fibers[current].products.clear();
  fibers[current].begun = false;
}
const void* right_number(uint64_t descriptor, int k, int n) {
  const auto field = [&](int bit) { return static_cast<unsigned>(descriptor >> bit & 0x3fff) * 16; };
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0 || field(0) % 1024 != 0)
    fail("wgmma is told of a layout that is not emulated");
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
  if (bytes > most || bytes > (major == 9 ? kMostShared90 : kMostShared))
    throw std::runtime_error("more shared memory than a block has");
}

void run(const cudaLaunchConfig_t& config, void (*body)(const void*), const void* of) {
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

// FASTKAN_EMULATED_PROCESSORS tells how many the emulated GPU has: few make large tiles, many make splits. Its compute
// capability is FASTKAN_EMULATED_MAJOR; float64 is by FASTKAN_EMULATED_RATIO slower than float32.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  struct Told {
    const char* by;
    int otherwise;
  };
  const Told told = which == cudaDevAttrMultiProcessorCount      ? Told{"FASTKAN_EMULATED_PROCESSORS", 1}
                    : which == cudaDevAttrComputeCapabilityMajor ? Told{"FASTKAN_EMULATED_MAJOR", 8}
                                                                 : Told{"FASTKAN_EMULATED_RATIO", 2};
  const char* wanted = std::getenv(told.by);
  *value = wanted ? std::atoi(wanted) : told.otherwise;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t) {
  memset(memory, byte, bytes);
  return cudaSuccess;
}

// In place of torch's own, for this library alone: its GPU is the CPU, which has no streams and is always current.
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
