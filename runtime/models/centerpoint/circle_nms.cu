// Circle NMS, see runtime/lidar/circle_nms.py: from the best box down, a box suppresses every later one at a squared distance of
// at most `radius` [m²], compared in double as NumPy does. One block a task, a thread a box, a round a box that is kept.
//
// boxes   (MAX_NUM, BOX_WORDS) 32-bit words, best first, see decode.cu
// kept    (POST_MAX, BOX_WORDS) 32-bit words: what is left, best first; header[KEPT + task] says how many

#define NMS_WARPS ((MAX_NUM + WARP - 1) / WARP)  // at most WARP, see MAX_BOXES in device_kernels.py
#define NMS_BLOCK (NMS_WARPS * WARP)

extern "C" __global__ void __launch_bounds__(NMS_BLOCK)
circle_nms(const int* boxes, const u32* state, double radius, int task, int* kept, int* header) {
    __shared__ float x[NMS_BLOCK], y[NMS_BLOCK];
    // A bit a box that is still there. Two of them: the next round writes one while this one is still read.
    __shared__ u32 there[2][NMS_WARPS];
    __shared__ int order[POST_MAX];
    const int box = threadIdx.x, lane = threadIdx.x % WARP;
    bool is_there = box < (int)state[NUM_BOXES];
    if (is_there) {
        x[box] = __int_as_float(boxes[box * BOX_WORDS]);
        y[box] = __int_as_float(boxes[box * BOX_WORDS + 1]);
    }
    int number = 0;
    for (; number < POST_MAX; number++) {
        const u32 own_word = __ballot_sync(ALL_LANES, is_there);
        if (lane == 0) there[number % 2][box / WARP] = own_word;
        __syncthreads();
        // Every warp looks for the first by itself, a lane a word.
        const u32 word = lane < NMS_WARPS ? there[number % 2][lane] : 0;
        const u32 words = __ballot_sync(ALL_LANES, word != 0);
        if (words == 0) break;
        const int first = __ffs(words) - 1;
        const int best = first * WARP + __ffs(__shfl_sync(ALL_LANES, word, first)) - 1;
        if (box == 0) order[number] = best;
        if (is_there) {
            const float dx = __fsub_rn(x[best], x[box]), dy = __fsub_rn(y[best], y[box]);
            const float distance = __fadd_rn(__fmul_rn(dx, dx), __fmul_rn(dy, dy));
            is_there = box != best && !((double)distance <= radius);
        }
    }
    __syncthreads();
    for (int index = threadIdx.x; index < number * BOX_WORDS; index += NMS_BLOCK)
        kept[index] = boxes[order[index / BOX_WORDS] * BOX_WORDS + index % BOX_WORDS];
    if (threadIdx.x == 0) header[KEPT + task] = number;
}
