/* # Design:
 * One table with linear probing over 64-bit hashes, words in one long run of bytes: a look-up costs a miss of the cache or
 * two. Splitting looks at a byte's class first; bytes that may begin one of Unicode's spaces are looked at twice.
 */
#include "lexicon.h"
#include "words.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t hash;
    int64_t begin, bytes; /* of `text` */
    int64_t count;
} entry;

struct fr_lexicon {
    entry *entries;
    char *text;
    int32_t *table; /* numbers of entries, -1 for none; at most half full */
    long size, room, text_size, text_room, slots;
};

static uint64_t hash_of(const char *word, long bytes) {
    uint64_t h = bytes * FR_GOLDEN, piece;
    for (; bytes >= 8; word += 8, bytes -= 8) {
        memcpy(&piece, word, 8);
        h = (h ^ piece) * 0xBF58476D1CE4E5B9u;
        h ^= h >> 32;
    }
    piece = 0;
    memcpy(&piece, word, bytes);
    return fr_mix(h ^ piece);
}

/* The slot of a word in the table, or the free one where it belongs. */
static long slot_of(const fr_lexicon *lexicon, const char *word, long bytes, uint64_t hash) {
    for (long slot = hash & (lexicon->slots - 1);; slot = (slot + 1) & (lexicon->slots - 1)) {
        const int32_t number = lexicon->table[slot];
        if (number < 0) return slot;
        const entry *e = &lexicon->entries[number];
        if (e->hash == hash && e->bytes == bytes && !memcmp(lexicon->text + e->begin, word, bytes)) return slot;
    }
}

static int fill_table(fr_lexicon *lexicon, long slots) {
    int32_t *table = malloc(slots * sizeof *table);
    if (!table) return -1;
    memset(table, -1, slots * sizeof *table);
    free(lexicon->table);
    lexicon->table = table, lexicon->slots = slots;
    for (long number = 0; number < lexicon->size; number++) {
        const entry *e = &lexicon->entries[number];
        table[slot_of(lexicon, lexicon->text + e->begin, e->bytes, e->hash)] = (int32_t)number;
    }
    return 0;
}

/* Room for one more of `size` things of some bytes each; doubles what there is. */
static int make_room(void **memory, long size, long *room, size_t bytes) {
    if (size <= *room) return 0;
    const long wanted = size > 2 * *room ? size : 2 * *room;
    void *larger = realloc(*memory, wanted * bytes);
    if (!larger) return -1;
    *memory = larger, *room = wanted;
    return 0;
}

fr_lexicon *fr_lexicon_new(void) {
    fr_lexicon *lexicon = calloc(1, sizeof *lexicon);
    if (lexicon && fill_table(lexicon, 1024)) {
        free(lexicon);
        return 0;
    }
    return lexicon;
}

void fr_lexicon_free(fr_lexicon *lexicon) {
    if (!lexicon) return;
    free(lexicon->entries);
    free(lexicon->text);
    free(lexicon->table);
    free(lexicon);
}

long fr_lexicon_size(const fr_lexicon *lexicon) { return lexicon->size; }

const char *fr_lexicon_word(const fr_lexicon *lexicon, long number, long *bytes, int64_t *count) {
    const entry *e = &lexicon->entries[number];
    *bytes = e->bytes, *count = e->count;
    return lexicon->text + e->begin;
}

int32_t fr_lexicon_add(fr_lexicon *lexicon, const char *word, long bytes, int64_t count) {
    const uint64_t hash = hash_of(word, bytes);
    long slot = slot_of(lexicon, word, bytes, hash);
    if (lexicon->table[slot] < 0) {
        if (lexicon->size == INT32_MAX) return -1;
        if (2 * (lexicon->size + 1) > lexicon->slots) {
            if (fill_table(lexicon, 2 * lexicon->slots)) return -1;
            slot = slot_of(lexicon, word, bytes, hash);
        }
        if (make_room((void **)&lexicon->entries, lexicon->size + 1, &lexicon->room, sizeof(entry)) ||
            make_room((void **)&lexicon->text, lexicon->text_size + bytes + 1, &lexicon->text_room, 1))
            return -1;
        memcpy(lexicon->text + lexicon->text_size, word, bytes);
        lexicon->entries[lexicon->size] = (entry){.hash = hash, .begin = lexicon->text_size, .bytes = bytes};
        lexicon->text_size += bytes;
        lexicon->table[slot] = (int32_t)lexicon->size++;
    }
    lexicon->entries[lexicon->table[slot]].count += count;
    return lexicon->table[slot];
}

int fr_lexicon_prune(fr_lexicon *lexicon, int64_t least) {
    long size = 0, text_size = 0;
    for (long number = 0; number < lexicon->size; number++) {
        entry e = lexicon->entries[number];
        if (e.count < least) continue;
        memmove(lexicon->text + text_size, lexicon->text + e.begin, e.bytes);
        e.begin = text_size;
        text_size += e.bytes;
        lexicon->entries[size++] = e;
    }
    lexicon->size = size, lexicon->text_size = text_size;
    return fill_table(lexicon, lexicon->slots);
}

/* ---- Splitting ---- */

enum { IN_WORD, SPACE, LINE_END, PERHAPS };

static const unsigned char classes[256] = {
    ['\t'] = SPACE,   ['\n'] = LINE_END, ['\v'] = SPACE,   ['\f'] = SPACE,   ['\r'] = SPACE,
    [0x1c] = SPACE,   [0x1d] = SPACE,    [0x1e] = SPACE,   [0x1f] = SPACE,   [' '] = SPACE,
    [0xc2] = PERHAPS, [0xe1] = PERHAPS,  [0xe2] = PERHAPS, [0xe3] = PERHAPS,
};

/* How many bytes Unicode's space at p takes, from one that begins with a byte of class PERHAPS: 0 for none, -1 where the
 * text ends too early to tell. */
static int wide_space(const unsigned char *p, const unsigned char *end) {
    if (end - p < 2) return -1;
    if (p[0] == 0xc2) return p[1] == 0x85 || p[1] == 0xa0 ? 2 : 0;
    if (p[0] == 0xe1 ? p[1] != 0x9a : p[0] == 0xe3 ? p[1] != 0x80 : p[1] != 0x80 && p[1] != 0x81) return 0;
    if (end - p < 3) return -1;
    if (p[0] != 0xe2) return p[2] == 0x80 ? 3 : 0;
    if (p[1] == 0x81) return p[2] == 0x9f ? 3 : 0;
    return p[2] <= 0x8a || p[2] == 0xa8 || p[2] == 0xa9 || p[2] == 0xaf ? 3 : 0;
}

/* The kind of what stands at p, and how many bytes of it. An unfinished character at the very end is a word's. */
static int look(const unsigned char *p, const unsigned char *end, int last, int *bytes) {
    const int class = classes[*p];
    *bytes = 1;
    if (class != PERHAPS) return class;
    const int wide = wide_space(p, end);
    if (wide < 0 && !last) return PERHAPS;
    if (wide > 0) *bytes = wide;
    return wide > 0 ? SPACE : IN_WORD;
}

/* The end of the word at p; NULL where it may go on behind the end. */
static const unsigned char *word_end(const unsigned char *p, const unsigned char *end, int last) {
    for (int bytes; p < end; p++) {
        const int kind = look(p, end, last, &bytes);
        if (kind == PERHAPS) return 0;
        if (kind != IN_WORD) return p;
    }
    return last ? p : 0;
}

long fr_lexicon_count(fr_lexicon *lexicon, const char *text, long bytes, int last, long most, int64_t *words,
                      int64_t *lines) {
    const unsigned char *p = (const unsigned char *)text, *const end = p + bytes;
    while (p < end && lexicon->size <= most) {
        int step;
        const int kind = look(p, end, last, &step);
        if (kind == PERHAPS) break;
        if (kind == IN_WORD) {
            const unsigned char *stop = word_end(p, end, last);
            if (!stop) break;
            if (fr_lexicon_add(lexicon, (const char *)p, stop - p, 1) < 0) return -1;
            ++*words;
            p = stop;
        } else {
            *lines += kind == LINE_END;
            p += step;
        }
    }
    return p - (const unsigned char *)text;
}

long fr_lexicon_encode(const fr_lexicon *lexicon, const char *text, long bytes, int last, int32_t *out, long room,
                       long *written) {
    const unsigned char *p = (const unsigned char *)text, *const end = p + bytes;
    while (p < end && *written < room) {
        int step;
        const int kind = look(p, end, last, &step);
        if (kind == PERHAPS) break;
        if (kind == IN_WORD) {
            const unsigned char *stop = word_end(p, end, last);
            if (!stop) break;
            const char *word = (const char *)p;
            const int32_t number = lexicon->table[slot_of(lexicon, word, stop - p, hash_of(word, stop - p))];
            if (number >= 0) out[(*written)++] = number;
            p = stop;
        } else {
            if (kind == LINE_END) out[(*written)++] = FR_BREAK;
            p += step;
        }
    }
    return p - (const unsigned char *)text;
}
