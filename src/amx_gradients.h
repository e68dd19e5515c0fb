/* Operands of the products of gradients.h, for AMX. A weight's gradient is gate gradients, transposed, times rows of the
 * other operand, and the sum runs over rows: pairs are of two rows, 16 apart. */
#ifndef FASTRNN_AMX_GRADIENTS_H
#define FASTRNN_AMX_GRADIENTS_H

/* Packed gate gradients: (two unit blocks, slot) are one operand block each, their units its rows. */
static long packed_size(long width, int slots) { return (vectors_in(width) + 1) / 2 * slots * operand_block(DEPTH); }
INLINE real *packed_block(const real *packed, long block, int slots, int slot) {
    return (real *)packed + (block / 2 * slots + slot) * operand_block(DEPTH) + block % 2 * CHUNK_SIZE;
}

/* A panel of the other operand, before that the operands of grad_input: blocks of up to FR_ROW_BLOCK rows. */
static long thread_scratch_size(const fr_sequence *q) {
    const long panel = chunks_of(DEPTH) * PANEL * CHUNK_SIZE, blocks = rows_together(q) / FR_ROW_BLOCK + 1;
    const long operands = blocks * operand_block(cut_of(q)->x_slots * padded(q->H));
    return panel > operands ? panel : operands;
}

static void gates_as_operands(const fr_sequence *q, const real **gates, long count, real *to) {
    const int slots = cut_of(q)->slots, x_slots = cut_of(q)->x_slots;
    for (long k = 0, part; k < count; k += part, to += operand_block(x_slots * padded(q->H))) {
        part = next_rows(count - k, FR_ROW_BLOCK);
        for (long m = 0; m < part; m++) put_gates(operand_line(to, m), gates[k + m], slots, 0, x_slots, q->H);
        gates[k] = to;
    }
}

/* Gate gradients of one unit block, and their sums. */
static void pack_gate_gradients(const gradient_operand *g, real *packed, long block, long m0, long depth, vec sums[4]) {
    const long row = operand_row(g);
    for (int slot = 0; slot < g->slots; slot++) {
        const real *from = g->data + m0 * row + (block * g->slots + slot) * VL;
        real *to = packed_block(packed, block, g->slots, slot);
        sums[slot] = (vec){0};
        for (long k = 0; k < depth; k += PAIR, to += 2 * CHUNK_SIZE) {
            vec tiles[TERMS][VL];
            for (long i = 0; i < VL; i++) {
                vec terms[TERMS];
                const vec x = k + i < depth ? load(from + (k + i) * row) : (vec){0};
                const vec y = k + VL + i < depth ? load(from + (k + VL + i) * row) : (vec){0};
                sums[slot] += x + y;
                split(terms, x, y);
                for (int t = 0; t < TERMS; t++) tiles[t][i] = terms[t];
            }
            for (int t = 0; t < TERMS; t++) {
                transpose(tiles[t]);
                for (int u = 0; u < VL; u++) store(to + t * TILE + u * VL, tiles[t][u]);
            }
        }
    }
}

static void add_weight_product(const fr_sequence *q, const gradient_operand *g, const weight_product *w,
                               const real *packed_gates, real *packed, range blocks, long m0, long depth) {
    const long vectors = vectors_in(w->width);
    const real *rows[DEPTH + PAIR] = {0};
    real acc[FR_ROW_BLOCK * PANEL * VL] __attribute__((aligned(64)));
    place p = place_of(q, m0);
    for (long k = 0; k < depth; k++, advance(q, &p)) rows[k] = operand_row_of(q, w, p);
    for (long first = 0; first < vectors; first += PANEL) {
        const int NV = panel_width(vectors, first);
        const long columns = w->width - first * VL;
        for (long k = 0; k < depth; k += PAIR)
            for (int i = 0; i < VL; i++) {
                const real *x = rows[k + i], *y = rows[k + VL + i];
                pack_pair(packed + k / PAIR * NV * CHUNK_SIZE, NV, i, x ? x + first * VL : 0, y ? y + first * VL : 0,
                          columns);
            }
        for (long block = blocks.begin, next; block < blocks.end; block = next) {
            /* Whole blocks in pairs, a partial one alone: whether sums start from dweight or are added to it rounds
             * differently, and must not depend on where shares are cut. */
            next = block % 2 == 0 && block + 2 <= blocks.end && (block + 2) * VL <= g->width ? block + 2 : block + 1;
            const long units = MIN(next * VL, g->width) - block * VL;
            for (int i = 0; i < w->slots; i++) {
                const real *gates = packed_block(packed_gates, block, g->slots, w->first_slot + i);
                const product gp = {&gates, 0, 0, 1, depth, packed};
                real *to = w->dweight + (w->gates[i] * g->width + block * VL) * w->width + first * VL;
                if (units % 16 == 0 && columns >= NV * VL) {
                    multiply(NV, units, to, w->width, to, w->width, &gp, 1, 1);
                    continue;
                }
                multiply(NV, units, acc, NV * VL, 0, 0, &gp, 1, 1);
                for (long u = 0; u < units; u++)
                    for (int v = 0; v < NV; v++) {
                        real *at = to + u * w->width + v * VL;
                        store_part(at, load_part(at, columns - v * VL) + load(acc + (u * NV + v) * VL),
                                   columns - v * VL);
                    }
            }
        }
    }
}

#endif
