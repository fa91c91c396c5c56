// The fibers behind cuda_runtime.h, and the other functions of CUDA and torch that the operators call.
#include <cuda/matrix/tma.h>
#include <cuda_runtime.h>
#include <ucontext.h>

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
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

enum class State {
  ready,
  waits_for_warp,
  waits_for_block,
  waits_for_cluster,
  waits_for_barrier,
  waits_for_named_barrier,
  done
};

struct Copy {
  void* to;          // nullptr: it has been carried out
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
  unsigned ranks;  // a bit for every block of the cluster that it goes to
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
  std::deque<Product> products;          // started
  int product_groups;                    // committed
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
constexpr unsigned kMostBlocks = 2;  // of a cluster, which run together; `shown` is the one in fastkan_shared
unsigned cluster, shown;
std::vector<unsigned char> hidden[kMostBlocks];  // shared memory of the others
std::map<const void*, BarrierState> barriers[kMostBlocks];
std::deque<TmaCopy> tma_copies;  // in flight
int64_t warpgroup_products;      // of all threads
int most_in_flight;              // groups of copies that a thread left in flight when it waited

// Below `count`; a linear congruential generator, whose lower bits are poor.
unsigned random_below(unsigned count) {
  random_state = random_state * 1664525 + 1013904223;
  return (random_state >> 8) % count;
}

// Calls f for 0 .. count - 1 in a random order, until it returns false.
template <class F>
void in_random_order(unsigned count, const F& f) {
  unsigned at = random_below(count), step = 1 + random_below(count);
  while (std::gcd(step, count) != 1) ++step;
  for (unsigned k = 0; k < count; ++k, at = static_cast<unsigned>((uint64_t{at} + step) % count))
    if (!f(at)) return;
}

// setjmp instead of swapcontext, which makes a system call.
void back_to_scheduler() {
  if (!_setjmp(fibers[current].here)) _longjmp(scheduler, 1);
}

void fiber_main() {
  kernel(context);
  fibers[current].state = State::done;
  _longjmp(scheduler, 1);
}

unsigned char* memory_of(unsigned rank) { return rank == shown ? fastkan_shared : hidden[rank].data(); }
// Puts the memory of that block of the cluster into fastkan_shared.
void show(unsigned rank) {
  if (rank != shown) {
    memcpy(hidden[shown].data(), fastkan_shared, shared_bytes);
    memcpy(fastkan_shared, hidden[rank].data(), shared_bytes);
  }
  blockIdx = dim3(blockIdx.x - shown + rank);
  shown = rank;
}

void resume(unsigned t) {
  Fiber& f = fibers[t];
  current = t;
  threadIdx = dim3(t % blockDim.x);
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
    f.product_groups = 0;
    f.copies_fenced = true;
    f.registers_fenced = false;
    f.which = 0;
    f.operation = nullptr;
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

BarrierState& barrier_at(unsigned rank, const void* address) {
  const auto found = barriers[rank].find(address);
  if (found == barriers[rank].end()) fail("no barrier was initialised there");
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
          for (unsigned rank = 0; rank < cluster; ++rank)
            if (copy.ranks >> rank & 1) memcpy(memory_of(rank) + (to ^ (to >> 7 & 7) << 4), &number, 2);
        }
  for (unsigned rank = 0; rank < cluster; ++rank) {
    if (!(copy.ranks >> rank & 1)) continue;
    BarrierState& barrier = barrier_at(rank, copy.barrier);
    barrier.bytes -= straight;
    end_phase(barrier);
  }
}

// Completes some of the copies in flight, in random order; all of them if `all`.
void complete_tma_copies(bool all) {
  while (!tma_copies.empty()) {
    if (!all && random_below(4) != 0) return;
    const size_t which = random_below(static_cast<unsigned>(tma_copies.size()));
    complete(tma_copies[which]);
    tma_copies.erase(tma_copies.begin() + static_cast<std::ptrdiff_t>(which));
  }
}

// Resumes fibers of a block whose mbarrier phase has ended or whose named barrier is complete.
bool release_from_barriers(unsigned rank) {
  bool any = false;
  unsigned together[16] = {};
  const unsigned begin = rank * blockDim.x, end = begin + blockDim.x;
  for (unsigned t = begin; t < end; ++t) together[fibers[t].which] += fibers[t].state == State::waits_for_named_barrier;
  for (unsigned t = begin; t < end; ++t) {
    Fiber& f = fibers[t];
    const bool ended = f.state == State::waits_for_barrier && (barrier_at(rank, f.barrier).phase & 1) != f.parity;
    if (!ended && !(f.state == State::waits_for_named_barrier && together[f.which] == f.expected)) continue;
    f.state = State::ready;
    any = true;
  }
  return any;
}

// Resumes fibers of a block whose warp or block has arrived completely; returns whether there were any.
bool release_block(unsigned rank) {
  bool any = false;
  const unsigned begin = rank * blockDim.x, last = begin + blockDim.x;
  for (unsigned w = begin; w < last; w += kWarp) {
    const unsigned end = w + kWarp < last ? w + kWarp : last;
    if (count_of(State::waits_for_warp, w, end) != end - w) continue;
    for (unsigned t = w; t < end; ++t)
      if (strcmp(fibers[t].operation, fibers[w].operation) != 0)
        failure = std::string("a warp is at ") + fibers[w].operation + " and at " + fibers[t].operation;
    release(State::waits_for_warp, w, end);
    any = true;
  }
  any |= release_from_barriers(rank);
  if (!any && count_of(State::waits_for_block, begin, last) == blockDim.x) {
    release(State::waits_for_block, begin, last);
    any = true;
  }
  return any;
}

// The same of all blocks that run together, `count` fibers.
bool release_waiting(unsigned count) {
  bool any = false;
  for (unsigned rank = 0; rank < cluster; ++rank) any |= release_block(rank);
  if (!any && count_of(State::waits_for_cluster, 0, count) == count) {
    release(State::waits_for_cluster, 0, count);
    any = true;
  }
  if (!any && !tma_copies.empty()) {
    complete_tma_copies(true);
    any = true;
  }
  return any;
}

// What the threads of a block wait for that will not come, and where.
std::string hang(unsigned count) {
  std::map<std::string, unsigned> waiting;
  for (unsigned t = 0; t < count; ++t) {
    const Fiber& f = fibers[t];
    std::string where = "have ended";
    if (f.state == State::ready) where = std::string("poll for ever, at last at ") + (f.operation ? f.operation : "");
    if (f.state == State::waits_for_warp) where = std::string("wait for their warp at ") + f.operation;
    if (f.state == State::waits_for_block) where = "wait at __syncthreads";
    if (f.state == State::waits_for_cluster) where = "wait for their cluster";
    if (f.state == State::waits_for_barrier)
      where = "wait at the mbarrier at shared memory " + std::to_string(shared_offset(f.barrier)) +
              " for the end of a phase of parity " + std::to_string(f.parity);
    if (f.state == State::waits_for_named_barrier)
      where = "wait at named barrier " + std::to_string(f.which) + " for " + std::to_string(f.expected) + " threads";
    ++waiting[where];
  }
  std::string what = "a hang in block " + std::to_string(blockIdx.x);
  for (const auto& [where, threads] : waiting) what += "; " + std::to_string(threads) + " threads " + where;
  return what;
}

// More turns than any kernel of the tests takes: threads that poll for ever end with an error, too.
constexpr int kMostTurns = 1 << 20;

// Runs the blocks of a cluster together, blockIdx the first one.
void run_cluster() {
  const unsigned count = cluster * blockDim.x;
  shown = 0;
  memset(fastkan_shared, 0xff, shared_bytes);
  for (unsigned rank = 0; rank < cluster; ++rank) {
    hidden[rank].assign(cluster > 1 ? shared_bytes : 0, 0xff);
    barriers[rank].clear();
  }
  prepare(count);
  tma_copies.clear();
  for (int turn = 0; failure.empty() && count_of(State::done, 0, count) != count; ++turn) {
    complete_tma_copies(false);
    in_random_order(cluster, [](unsigned rank) {
      show(rank);
      in_random_order(blockDim.x, [rank](unsigned t) {
        if (fibers[rank * blockDim.x + t].state == State::ready) resume(rank * blockDim.x + t);
        return true;
      });
      return true;
    });
    if (!failure.empty() || count_of(State::done, 0, count) == count) return;
    if (!release_waiting(count) || turn == kMostTurns) failure = hang(count);
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

void wait_for_cluster() {
  fibers[current].state = State::waits_for_cluster;
  back_to_scheduler();
}
unsigned cluster_rank() { return shown; }

void init_barrier(const void* barrier, int arrivals) { barriers[shown][barrier] = {arrivals, arrivals, 0, 0}; }
void arrive(const void* at, int announced, unsigned rank) {
  BarrierState& barrier = barrier_at(rank, at);
  if (barrier.missing == 0) fail("more arrivals at a barrier than it expects");
  barrier.bytes += announced;
  --barrier.missing;
  end_phase(barrier);
}
void wait_for_barrier(const void* barrier, int parity) {
  if ((barrier_at(shown, barrier).phase & 1) != static_cast<unsigned>(parity)) return;
  fibers[current].barrier = barrier;
  fibers[current].parity = static_cast<unsigned>(parity);
  fibers[current].state = State::waits_for_barrier;
  back_to_scheduler();
}
void start_tma_copy(void* shared, const fastkan::TensorLayout& of, const int* at, const void* barrier, unsigned ranks) {
  expect_aligned(shared, 1024);
  expect_aligned(of.data, 16);
  tma_copies.push_back({static_cast<unsigned char*>(shared), of, {at[0], at[1], at[2], at[3]}, barrier, ranks});
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

void carry_out(const Copy& copy) {
  if (!copy.to) return;
  if (copy.from)
    memcpy(copy.to, copy.from, 16);
  else
    memset(copy.to, 0, 16);
}
// At once, or as late as it may be: when it is waited for.
void start_copy(void* to, const void* from, bool there) {
  Copy copy = {to, there ? from : nullptr};
  if (random_below(2) == 0) {
    carry_out(copy);
    copy.to = nullptr;
  }
  fibers[current].copies.push_back(copy);
}
void commit_copies() {
  fibers[current].groups.push_back(std::move(fibers[current].copies));
  fibers[current].copies.clear();
}
void wait_for_copies(int most) {
  std::deque<std::vector<Copy>>& groups = fibers[current].groups;
  for (; static_cast<int>(groups.size()) > most; groups.pop_front()) {
    fibers[current].copies_fenced = fibers[current].copies_fenced && groups.front().empty();
    for (const Copy& copy : groups.front()) carry_out(copy);
  }
  int in_flight = 0;
  for (const std::vector<Copy>& group : groups) in_flight += !group.empty();
  if (in_flight > most_in_flight) most_in_flight = in_flight;
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
  fibers[current].products.back().group = fibers[current].product_groups;
  ++warpgroup_products;
  if (random_below(2) == 0) compute_products(fibers[current].product_groups + 1);
}
void wgmma_commit() { ++fibers[current].product_groups; }
void wgmma_wait(int most) {
  compute_products(fibers[current].product_groups - most);
  fibers[current].registers_fenced = false;
}
// Those of the first `groups` that were started, in their order: at once, or as late as it may be.
void compute_products(int groups) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  std::deque<Product>& products = fibers[current].products;
  for (; !products.empty() && products.front().group < groups; products.pop_front()) {
    const Product& product = products.front();
    for (int n = 0; n < 16; ++n)
      for (int r = 0; r < 4; ++r)
        for (int k = 0; k < product.depth; ++k)
          product.sums[n][r] += product.left[r / 2][k] * product.number(right_number(product.right, product.deep, k,
                                                                                     8 * n + lane % 4 * 2 + r % 2));
  }
}
const void* right_number(uint64_t descriptor, bool deep, int k, int n) {
  const auto field = [&](int bit) { return static_cast<unsigned>(descriptor >> bit & 0x3fff) * 16; };
  if (deep) {
    if (descriptor >> 62 != 2 || (descriptor >> 49 & 7) != 0 || field(0) % 512 > 32)
      fail("a wgmma descriptor has a layout that is not emulated");
    const unsigned straight = field(0) + n / 8 * field(32) + n % 8 * 64 + k * 2;
    return fastkan_shared + (straight ^ (straight >> 7 & 3) << 4);
  }
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
  if (config.gridDim.x == 0) throw std::runtime_error("a grid without blocks");
  kernel = body;
  context = of;
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  shared_bytes = config.dynamicSmemBytes;
  cluster = config.numAttrs == 1 ? config.attrs->val.clusterDim.x : 1;
  if (cluster > kMostBlocks || gridDim.x % cluster != 0) throw std::runtime_error("a grid of parts of clusters");
  failure.clear();
  in_random_order(gridDim.x / cluster, [](unsigned b) {
    blockIdx = dim3(b * cluster);
    run_cluster();
    return failure.empty();
  });
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

// For the tests: the most groups of copies that a thread had in flight when it waited, since the last call.
extern "C" __attribute__((visibility("default"))) int fastkan_emulated_copies_in_flight() {
  return std::exchange(emulated::most_in_flight, 0);
}
// Products by wgmma since the last call, of all threads.
extern "C" __attribute__((visibility("default"))) int64_t fastkan_emulated_warpgroup_products() {
  return std::exchange(emulated::warpgroup_products, 0);
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
