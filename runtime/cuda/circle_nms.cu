// Circle NMS, see runtime/circle_nms.py: from the best box down, a box suppresses every later one at a squared distance of
// at most `radius` [m²], compared in double as NumPy does. One block a task.
//
// boxes   (MAX_NUM, BOX_WORDS) 32-bit words, best first, see decode.cu
// kept    (POST_MAX, BOX_WORDS) 32-bit words: what is left, best first; header[KEPT + task] says how many

#define NMS_BLOCK 1024
#define MASK_WORDS ((MAX_NUM + 31) / 32)

extern "C" __global__ void __launch_bounds__(NMS_BLOCK)
circle_nms(const int* boxes, const u32* state, double radius, int task, u32* masks, int* kept, int* header) {
    // masks (MAX_NUM, MASK_WORDS) uint32: bit j of row i says that box i would suppress box j.
#if MAX_NUM * MASK_WORDS <= 8192
    __shared__ u32 near_memory[MAX_NUM * MASK_WORDS];
    masks = near_memory;
#endif
    __shared__ float x[MAX_NUM], y[MAX_NUM];
    __shared__ int order[POST_MAX];
    __shared__ int num_kept;
    const int count = (int)state[NUM_BOXES];
    for (int box = threadIdx.x; box < count; box += NMS_BLOCK) {
        x[box] = __int_as_float(boxes[box * BOX_WORDS]);
        y[box] = __int_as_float(boxes[box * BOX_WORDS + 1]);
    }
    __syncthreads();
    for (int index = threadIdx.x; index < count * MASK_WORDS; index += NMS_BLOCK) {
        const int box = index / MASK_WORDS, first = index % MASK_WORDS * 32;
        u32 mask = 0;
        for (int bit = 0; bit < 32; bit++) {
            const int other = first + bit;
            if (other <= box || other >= count) continue;
            const float dx = __fsub_rn(x[box], x[other]), dy = __fsub_rn(y[box], y[other]);
            const float distance = __fadd_rn(__fmul_rn(dx, dx), __fmul_rn(dy, dy));
            if ((double)distance <= radius) mask |= 1u << bit;
        }
        masks[index] = mask;
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        // A lane a word of boxes that are still there; MASK_WORDS is at most 32.
        const int lane = threadIdx.x, boxes_before = lane * 32;
        u32 alive = boxes_before >= count ? 0 : count - boxes_before >= 32 ? ALL_LANES : (1u << (count - boxes_before)) - 1;
        int number = 0;
        while (number < POST_MAX) {
            const u32 lanes = __ballot_sync(ALL_LANES, alive != 0);
            if (lanes == 0) break;
            const int best_lane = __ffs(lanes) - 1;
            const int box = best_lane * 32 + __ffs(__shfl_sync(ALL_LANES, alive, best_lane)) - 1;
            if (lane == 0) order[number] = box;
            number++;
            if (lane < MASK_WORDS) alive &= ~masks[box * MASK_WORDS + lane];
            if (lane == best_lane) alive &= ~(1u << (box % 32));
        }
        if (lane == 0) num_kept = number;
    }
    __syncthreads();
    for (int index = threadIdx.x; index < num_kept * BOX_WORDS; index += NMS_BLOCK)
        kept[index] = boxes[order[index / BOX_WORDS] * BOX_WORDS + index % BOX_WORDS];
    if (threadIdx.x == 0) header[KEPT + task] = num_kept;
}
