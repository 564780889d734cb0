/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* See crash-model.h.
 *
 * The file of model_save has one line for the whole, "crash-load 1 BLOCKS ID",
 * and one for each block with the values it may hold.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash-model.h"

#define WORDS (BLOCK / sizeof (uint64_t))
/* What makes the words of a block differ. */
#define WORD_STEP UINT64_C (0x9e3779b97f4a7c15)

/* A value that a block may hold. */
struct candidate {
  uint64_t value;               /* 0, or id << BLOCK_BITS | block */
  uint64_t begin, end, dead, gone;
  bool may;
};

struct block {
  struct candidate *list;
  size_t count, size;
};

static uint64_t now, next_id = 1, nr_blocks;
static struct block *blocks;
static enum loss model_loss;
static uint64_t (*horizon) (void);

static void
add (uint64_t block, struct candidate new)
{
  struct block *b = &blocks[block];

  if (b->count == b->size) {
    b->size = b->size ? 2 * b->size : 4;
    b->list = realloc (b->list, b->size * sizeof b->list[0]);
    if (b->list == NULL)
      fail ("out of memory");
  }
  b->list[b->count++] = new;
}

/* What was there in the beginning. */
static void
add_first (uint64_t block, uint64_t value)
{
  add (block, (struct candidate) { .value = value, .dead = NEVER,
                                   .gone = NEVER });
}

static void
make_blocks (uint64_t count, enum loss loss)
{
  if (count >> BLOCK_BITS)
    fail ("the volume is too large");
  nr_blocks = count;
  model_loss = loss;
  blocks = calloc (count, sizeof blocks[0]);
  if (blocks == NULL)
    fail ("out of memory");
}

void
model_new (uint64_t count, enum loss loss)
{
  uint64_t i;

  make_blocks (count, loss);
  for (i = 0; i < count; i++)
    add_first (i, 0);
}

static void
load_block (char *line, uint64_t block)
{
  char *word, *rest = line;

  while ((word = strtok_r (rest, " \n", &rest)) != NULL)
    add_first (block, strtoull (word, NULL, 16));
  if (blocks[block].count == 0)
    fail ("block %" PRIu64 " of the state file has no value", block);
}

bool
model_load (const char *file, uint64_t count, enum loss loss)
{
  FILE *f = fopen (file, "r");
  char *line = NULL;
  size_t size = 0;
  uint64_t n, i;

  if (f == NULL && errno == ENOENT)
    return false;
  if (f == NULL ||
      fscanf (f, "crash-load 1 %" SCNu64 " %" SCNu64 "\n",
              &n, &next_id) != 2)
    fail ("%s: cannot be read", file);
  if (n != count)
    fail ("%s is of a volume of %" PRIu64 " blocks and not %" PRIu64,
          file, n, count);
  make_blocks (count, loss);
  for (i = 0; i < count; i++) {
    if (getline (&line, &size, f) < 0)
      fail ("%s ends early", file);
    load_block (line, i);
  }
  free (line);
  fclose (f);
  return true;
}

static size_t
save_block (FILE *f, const struct block *b, bool kept)
{
  size_t i, values = 0;

  for (i = 0; i < b->count; i++) {
    const struct candidate *c = &b->list[i];

    if ((kept ? c->dead : c->gone) != NEVER)
      continue;
    fprintf (f, " %" PRIx64, c->value);
    values++;
  }
  putc ('\n', f);
  return values;
}

uint64_t
model_save (const char *file, bool kept)
{
  char *new = NULL;
  uint64_t i, unsure = 0;
  FILE *f;

  if (asprintf (&new, "%s.new", file) < 0 || (f = fopen (new, "w")) == NULL)
    fail ("%s: cannot be written", file);
  fprintf (f, "crash-load 1 %" PRIu64 " %" PRIu64 "\n", nr_blocks, next_id);
  for (i = 0; i < nr_blocks; i++)
    unsure += save_block (f, &blocks[i], kept) > 1;
  if (fclose (f) != 0 || rename (new, file) != 0)
    fail ("%s: cannot be written", file);
  free (new);
  return unsure;
}

void
model_free (void)
{
  uint64_t i;

  for (i = 0; i < nr_blocks; i++)
    free (blocks[i].list);
  free (blocks);
}

uint64_t
model_id (void)
{
  return next_id++;
}

void
model_set_horizon (uint64_t (*oldest_read) (void))
{
  horizon = oldest_read;
}

/*----------------------------------------------------------------------
 * Values
 */

static uint64_t
value_of (const struct access *a, uint64_t block)
{
  return a->id ? a->id << BLOCK_BITS | block : 0;
}

/* The first word of a block is its value. */
static uint64_t
word_of (uint64_t value, size_t i)
{
  return value ? value ^ i * WORD_STEP : 0;
}

void
model_fill (const struct access *a, void *data)
{
  uint64_t *words = data;
  uint64_t b;
  size_t i;

  for (b = a->first; b < a->first + a->count; b++)
    for (i = 0; i < WORDS; i++)
      *words++ = word_of (value_of (a, b), i);
}

static bool
is_whole (const uint64_t *words)
{
  size_t i;

  for (i = 1; i < WORDS; i++)
    if (words[i] != word_of (words[0], i))
      return false;
  return true;
}

/*----------------------------------------------------------------------
 * Changes
 */

/* Forget what had gone before the reads in flight began. */
static void
collect (struct block *b, uint64_t oldest)
{
  size_t i, kept = 0;

  for (i = 0; i < b->count; i++)
    if (b->list[i].gone == NEVER || b->list[i].gone > oldest)
      b->list[kept++] = b->list[i];
  b->count = kept;
}

void
model_begin_change (struct access *a, bool may)
{
  uint64_t b;

  a->begin = ++now;
  for (b = a->first; b < a->first + a->count; b++)
    add (b, (struct candidate) { .value = value_of (a, b),
                                 .begin = a->begin, .end = NEVER,
                                 .dead = NEVER, .gone = NEVER, .may = may });
}

/* The values other than that of KEEP that were complete before TIME are
 * dead, and with GONE gone.
 */
static void
outdate (struct block *b, const struct candidate *keep, uint64_t time,
         bool gone)
{
  size_t i;

  for (i = 0; i < b->count; i++) {
    struct candidate *c = &b->list[i];

    if (c->end >= time || c->value == keep->value)
      continue;
    if (c->dead == NEVER)
      c->dead = now;
    if (gone && c->gone == NEVER)
      c->gone = now;
  }
}

void
model_end_change (struct access *a, bool success, bool fua)
{
  uint64_t oldest, b;
  size_t i;

  now++;
  oldest = horizon ();
  for (b = a->first; b < a->first + a->count; b++) {
    struct candidate *c = NULL;

    for (i = 0; c == NULL || c->begin != a->begin; i++)
      c = &blocks[b].list[i];
    c->end = now;
    if (success && !c->may)
      outdate (&blocks[b], c, a->begin, fua);
    collect (&blocks[b], oldest);
  }
}

/*----------------------------------------------------------------------
 * Flushes
 */

uint64_t
model_begin_flush (void)
{
  return ++now;
}

/* After one that failed nothing is known of what came before it and was not
 * yet durable.
 */
void
model_end_flush (uint64_t begin, bool success)
{
  uint64_t i;
  size_t j;

  now++;
  for (i = 0; i < nr_blocks; i++)
    for (j = 0; j < blocks[i].count; j++) {
      struct candidate *c = &blocks[i].list[j];

      if (c->gone != NEVER)
        continue;
      if (!success)
        c->dead = NEVER;
      else if (c->dead < begin)
        c->gone = now;
    }
}

/*----------------------------------------------------------------------
 * Reads
 */

void
model_begin_read (struct access *a)
{
  a->begin = ++now;
}

static void __attribute__ ((__noreturn__))
wrong (const struct access *a, uint64_t block, const char *what,
       uint64_t value)
{
  size_t i;

  for (i = 0; i < blocks[block].count; i++) {
    const struct candidate *c = &blocks[block].list[i];

    fprintf (stderr, "  request %" PRIu64 "%s: sent at %" PRIu64
             ", done at %" PRId64 ", dead at %" PRId64 ", gone at %" PRId64
             "\n", c->value >> BLOCK_BITS, c->may ? " (trim)" : "", c->begin,
             (int64_t) c->end, (int64_t) c->dead, (int64_t) c->gone);
  }
  fail ("block %" PRIu64 " read between %" PRIu64 " and %" PRIu64
        ": %s: request %" PRIu64 ", block %" PRIu64, block, a->begin, now,
        what, value >> BLOCK_BITS, value % (1 << BLOCK_BITS));
}

static bool
could_be_seen (const struct candidate *c, uint64_t time)
{
  return (model_loss == LOSS_NOTHING ? c->dead : c->gone) > time;
}

static void
check_block (const struct access *a, uint64_t block, const uint64_t *words)
{
  struct block *b = &blocks[block];
  struct candidate *found = NULL;
  bool in_flight = false;
  size_t i;

  for (i = 0; i < b->count; i++) {
    struct candidate *c = &b->list[i];

    in_flight |= c->end > a->begin;
    if (could_be_seen (c, a->begin) && c->value == words[0] &&
        (found == NULL || c->begin > found->begin))
      found = c;
  }
  /* Nothing keeps a write in flight and a read of the same page apart. */
  if (in_flight && !is_whole (words))
    return;
  if (!is_whole (words))
    wrong (a, block, "a mixture, which begins with", words[0]);
  if (found == NULL)
    wrong (a, block, "not what it can be", words[0]);
  if (model_loss == LOSS_NOTHING && found->end < a->begin)
    outdate (b, found, a->begin, false);
}

void
model_end_read (struct access *a, const void *data)
{
  const uint64_t *words = data;
  uint64_t b;

  now++;
  for (b = a->first; b < a->first + a->count; b++, words += WORDS)
    check_block (a, b, words);
}
