// CUDA's language on a CPU, as far as the kernels of runtime/cuda use it: the threads of a block are fibers that change
// at barriers, warp operations and atomics, in an order drawn from a seed. One block runs after the other.
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

using std::isfinite;
using std::isnan;

struct Index {
    unsigned x, y, z;
};

struct Warp {
    int live = 0, arrived = 0;
    unsigned generation = 0;
    uint64_t values[32];
    bool there[32];
};

struct Fiber {
    ucontext_t start;  // where it begins; from then on it is entered and left by jumps, which need no system call
    jmp_buf inside;
    Index thread{};
    bool started = false, done = false;
    const unsigned* gate = nullptr;  // it waits as long as this has the value `seen`
    unsigned seen = 0;
    std::vector<char> stack;
};

static Index blockIdx, blockDim, gridDim;
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static Fiber* current;
static jmp_buf scheduler;
static int live_threads, arrived_threads;
static unsigned generation;
static std::mt19937 schedule;
static const std::function<void()>* body;

#define threadIdx (current->thread)

static void yield() {
    if (_setjmp(current->inside) == 0) _longjmp(scheduler, 1);
}

__attribute__((noinline)) static void resume(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber->started) _longjmp(fiber->inside, 1);
    fiber->started = true;
    setcontext(&fiber->start);
}

static void wait_at(const unsigned& gate, unsigned seen) {
    current->gate = &gate;
    current->seen = seen;
    while (gate == seen) yield();
    current->gate = nullptr;
}

static Warp& warp_of(const Fiber* fiber) { return warps[fiber->thread.x / 32]; }

static void release_block() {
    if (live_threads > 0 && arrived_threads == live_threads) {
        arrived_threads = 0;
        generation++;
    }
}

static void release_warp(Warp& warp) {
    if (warp.live > 0 && warp.arrived == warp.live) {
        warp.arrived = 0;
        warp.generation++;
    }
}

static void __syncthreads() {
    const unsigned mine = generation;
    arrived_threads++;
    release_block();
    wait_at(generation, mine);
}

static void __syncwarp() {
    Warp& warp = warp_of(current);
    const unsigned mine = warp.generation;
    warp.arrived++;
    release_warp(warp);
    wait_at(warp.generation, mine);
}

template <class T>
static T exchange(T value, int source) {
    Warp& warp = warp_of(current);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    warp.values[threadIdx.x % 32] = bits;
    __syncwarp();
    T answer = value;
    if (source >= 0 && source < 32) std::memcpy(&answer, &warp.values[source], sizeof(T));
    __syncwarp();
    return answer;
}

template <class T>
static T __shfl_sync(unsigned, T value, int lane) { return exchange(value, lane); }
template <class T>
static T __shfl_up_sync(unsigned, T value, int offset) { return exchange(value, (int)(threadIdx.x % 32) - offset); }
template <class T>
static T __shfl_down_sync(unsigned, T value, int offset) { return exchange(value, (int)(threadIdx.x % 32) + offset); }

static unsigned __ballot_sync(unsigned, bool predicate) {
    Warp& warp = warp_of(current);
    warp.values[threadIdx.x % 32] = predicate;
    __syncwarp();
    unsigned ballot = 0;
    for (int lane = 0; lane < 32; lane++) ballot |= (unsigned)(warp.values[lane] != 0) << lane;
    __syncwarp();
    return ballot;
}

// Another thread may come in between before every atomic operation.
static void maybe_yield() {
    if (schedule() % 4 == 0) yield();
}

template <class T, class V>
static T atomicAdd(T* address, V value) {
    maybe_yield();
    const T old = *address;
    *address = old + (T)value;
    return old;
}
template <class T, class V>
static T atomicMin(T* address, V value) {
    maybe_yield();
    const T old = *address;
    if ((T)value < old) *address = (T)value;
    return old;
}

template <class T, class V>
static T atomicOr(T* address, V value) {
    maybe_yield();
    const T old = *address;
    *address = old | (T)value;
    return old;
}

template <class T>
static T min(T a, T b) { return b < a ? b : a; }
template <class T>
static T max(T a, T b) { return a < b ? b : a; }

static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static float __fsqrt_rn(float a) { return std::sqrt(a); }
static int __ffs(unsigned bits) { return __builtin_ffs((int)bits); }
static int __ffsll(long long bits) { return __builtin_ffsll(bits); }
static int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
template <class To, class From>
static To same_bits(From value) {
    To answer;
    std::memcpy(&answer, &value, sizeof(To));
    return answer;
}
static float __int_as_float(int value) { return same_bits<float>(value); }
static int __float_as_int(float value) { return same_bits<int>(value); }
static unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
static float __uint_as_float(unsigned value) { return same_bits<float>(value); }
static float half_to_float(unsigned short bits) { return (float)same_bits<_Float16>(bits); }
static unsigned short float_to_half(float value) { return same_bits<unsigned short>((_Float16)value); }

static void run_fiber() {
    (*body)();
    current->done = true;
    live_threads--;
    release_block();
    Warp& warp = warp_of(current);
    warp.live--;
    release_warp(warp);
    while (true) yield();
}

static void run_block(unsigned threads) {
    if (fibers.size() < threads) fibers.resize(threads);
    warps.assign((threads + 31) / 32, Warp());
    std::vector<Fiber*> order;
    live_threads = (int)threads;
    arrived_threads = 0;
    for (unsigned thread = 0; thread < threads; thread++) {
        Fiber& fiber = fibers[thread];
        if (fiber.stack.empty()) fiber.stack.resize(32 << 10);
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.data();
        fiber.start.uc_stack.ss_size = fiber.stack.size();
        fiber.start.uc_link = nullptr;
        fiber.thread = {thread, 0, 0};
        fiber.started = fiber.done = false;
        fiber.gate = nullptr;
        makecontext(&fiber.start, run_fiber, 0);
        warps[thread / 32].live++;
        order.push_back(&fiber);
    }
    while (!order.empty()) {
        for (size_t place = order.size(); place > 1; place--) std::swap(order[place - 1], order[schedule() % place]);
        for (Fiber* fiber : order)
            if (!fiber->gate || *fiber->gate != fiber->seen) resume(fiber);
        std::vector<Fiber*> left;
        for (Fiber* fiber : order)
            if (!fiber->done) left.push_back(fiber);
        order.swap(left);
    }
}

template <class... Types, size_t... Number>
static void call(void (*kernel)(Types...), void** arguments, std::index_sequence<Number...>) {
    kernel(*static_cast<std::remove_const_t<Types>*>(arguments[Number])...);
}

template <class... Types>
static void launch(void (*kernel)(Types...), unsigned blocks, unsigned lines, unsigned threads, unsigned seed,
                   void** arguments) {
    schedule.seed(seed);
    const std::function<void()> work = [&] { call(kernel, arguments, std::index_sequence_for<Types...>()); };
    body = &work;
    blockDim = {threads, 1, 1};
    gridDim = {blocks, lines, 1};
    std::vector<unsigned> order(blocks * lines);
    for (unsigned block = 0; block < order.size(); block++) order[block] = block;
    for (unsigned place = order.size(); place > 1; place--) std::swap(order[place - 1], order[schedule() % place]);
    for (unsigned block : order) {
        blockIdx = {block % blocks, block / blocks, 0};
        run_block(threads);
    }
}
