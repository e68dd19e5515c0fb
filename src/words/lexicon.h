/* From the bytes of a text to counts and numbers of its words. */
#ifndef FASTRNN_WORDS_LEXICON_H
#define FASTRNN_WORDS_LEXICON_H

#include <stdint.h>

/* Words with a number, counted from 0 in the order in which they came, and how often each was met. */
typedef struct fr_lexicon fr_lexicon;

fr_lexicon *fr_lexicon_new(void); /* NULL where there is no memory */
void fr_lexicon_free(fr_lexicon *);
long fr_lexicon_size(const fr_lexicon *);
const char *fr_lexicon_word(const fr_lexicon *, long number, long *bytes, int64_t *count);

/* Adds to a word's count; a new word gets the next number. Returns its number, or -1 where there is no memory. */
int32_t fr_lexicon_add(fr_lexicon *, const char *word, long bytes, int64_t count);

/* Forgets words met less than `least` times and numbers the others anew, in their order. 0, or -1 for no memory. */
int fr_lexicon_prune(fr_lexicon *, int64_t least);

/* Words are what stands between white space, as str.split() of Python takes it; a line is a sentence. Both functions
stop
 * before a word that may go on behind the end, unless this is the last of the text, and return how far they came.
 *
 * count: adds words, and to *words and *lines; stops too once there are more than `most` words. -1 for no memory.
 * encode: writes the numbers of words that are known, and FR_BREAK after each line, until `room` is full. */
long fr_lexicon_count(fr_lexicon *, const char *text, long bytes, int last, long most, int64_t *words, int64_t *lines);
long fr_lexicon_encode(const fr_lexicon *, const char *text, long bytes, int last, int32_t *out, long room,
                       long *written);

#endif
