/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What a copy of the log looks like: blocks, where they are, and how they
 * are encoded and checked.  dmio-log(5) has the byte table.  Nothing in
 * log-format.c does I/O or knows threads.
 */

#ifndef DMIO_LOG_FORMAT_H
#define DMIO_LOG_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "dm-log.h"

#define LOG_BLOCK 4096
#define LOG_BLOCK_SECTORS (LOG_BLOCK / DM_IO_SECTOR_SIZE)
#define LOG_VERSION 1
#define LOG_MAX_LEGS 64
#define LOG_MAX_COPIES 64
#define LOG_HISTORY 64
#define LOG_UUID 16

/* The bits in a block of a bitmap. */
#define LOG_BLOCK_WORDS 500
#define LOG_BLOCK_BITS (LOG_BLOCK_WORDS * 64)

G_STATIC_ASSERT (LOG_MAX_LEGS == DM_IO_MAX_REGIONS);
G_STATIC_ASSERT (LOG_MAX_COPIES == DM_IO_MAX_REGIONS);

/* The kinds of blocks. */
enum log_type {
  LOG_SUPER = 1,
  LOG_LABEL = 2,
  LOG_DIRTY = 3,
  LOG_LEG = 4,
  LOG_LACKING = 5,
  LOG_WHERE = 6,
};

/* Where the first ones are. */
#define LOG_SUPER_AT 0          /* two of them */
#define LOG_LABEL_AT 2
#define LOG_DIRTY_AT 3

struct log_geometry {
  sector_t volume, chunk;
  uint64_t chunks;
  unsigned int map_blocks;      /* of each bitmap */
  unsigned int map_words;       /* of each bitmap in memory, whole blocks */
  unsigned int blocks;          /* of a copy, without LOG_WHERE */
};

/* False, and *G is empty, if there cannot be such a log. */
extern bool log_geometry_init (struct log_geometry *g, sector_t volume,
                               sector_t chunk);
/* Blocks up to the end of leg N - 1. */
extern unsigned int log_used_blocks (const struct log_geometry *g,
                                     unsigned int num_legs);

/* What a block is. */
struct log_place {
  enum log_type type;
  unsigned int slot;            /* leg; LOG_SUPER: 0 */
  unsigned int index;           /* in its bitmap */
};
extern struct log_place log_place (const struct log_geometry *g,
                                   unsigned int block);
extern unsigned int log_leg_at (const struct log_geometry *g,
                                unsigned int leg);

/* Behind all these: where copy N is.  A copy may end before. */
static inline unsigned int
log_where_at (const struct log_geometry *g, unsigned int copy)
{
  return g->blocks + copy;
}

struct log_super_leg {
  enum dm_log_state state;
  sector_t sectors;
  struct bdev_stamp stamp;
  uint64_t until;
};

/* The history has the epochs before this one that another copy may still have,
 * the latest first.  QUIET: in so many epochs, this one and those before it, no leg
 * was written.  ORDERLY: the server has ended, and nothing that it sent is under way.
 */
struct log_super {
  unsigned char uuid[LOG_UUID];
  uint64_t sequence, generation, epoch;
  unsigned int num_history;
  uint64_t history[LOG_HISTORY];
  unsigned int quiet;
  bool orderly;
  sector_t volume, chunk;
  unsigned int num_legs;
  uint64_t copies;              /* in use, a set of copy numbers */
  struct log_super_leg legs[LOG_MAX_LEGS];
};

/* A label is written before the rest of a copy: it says what a copy without
 * a superblock was going to be.
 */
enum log_label_state {
  LOG_LABEL_NEW = 1,            /* part of a log that is being made */
  LOG_LABEL_USED = 2,
};

/* Encode a block.  CHECKSUM is of G_CHECKSUM_SHA256, and is reset.  SEQUENCE is
 * that of the last durable superblock.
 */
extern void log_encode_super (void *block, const struct log_super *super,
                              GChecksum *checksum);
extern void log_encode_label (void *block, const unsigned char *uuid,
                              unsigned int copy, enum log_label_state state,
                              GChecksum *checksum);
extern void log_encode_leg (void *block, const unsigned char *uuid,
                            uint64_t sequence, unsigned int leg,
                            const char *id, GChecksum *checksum);
/* WHERE may be empty: that is not known. */
extern void log_encode_where (void *block, const unsigned char *uuid,
                              unsigned int copy, const char *where,
                              GChecksum *checksum);
/* Bits of a bitmap: those in A or B, each of LOG_BLOCK_WORDS. */
extern void log_encode_map (void *block, const unsigned char *uuid,
                            uint64_t sequence, struct log_place place,
                            const uint64_t *a, const uint64_t *b,
                            GChecksum *checksum);

/* What is wrong with a block. */
enum log_verdict {
  LOG_VALID,
  LOG_BLANK,                    /* all zero */
  LOG_UNKNOWN,                  /* of a version that is not known */
  LOG_INVALID,
};

/* Decode one, if it is valid.  *SEQUENCE is only set then. */
extern enum log_verdict log_decode_super (const void *block,
                                          struct log_super *super,
                                          GChecksum *checksum);
/* If a block is LOG_UNKNOWN or seems to be: its version. */
extern uint32_t log_block_version (const void *block);
extern void log_block_uuid (const void *block, unsigned char *uuid);
/* True if the checksum is right, whatever else is. */
extern bool log_checksum_right (const void *block, GChecksum *checksum);
extern enum log_verdict log_decode_label (const void *block,
                                          const unsigned char *uuid,
                                          unsigned int *copy,
                                          enum log_label_state *state,
                                          GChecksum *checksum);
/* Returns NULL if it is not valid, else to be freed with g_free. */
extern char *log_decode_leg (const void *block, const unsigned char *uuid,
                             unsigned int leg, uint64_t *sequence,
                             GChecksum *checksum);
/* NULL also if it is empty: it is not known. */
extern char *log_decode_where (const void *block, const unsigned char *uuid,
                               unsigned int copy, GChecksum *checksum);
extern enum log_verdict log_decode_map (const void *block,
                                        const unsigned char *uuid,
                                        struct log_place place,
                                        uint64_t *words, uint64_t *sequence,
                                        GChecksum *checksum);

/* True if it begins like a block of a log. */
extern bool log_has_magic (const void *block);

#define LOG_UUID_STRING 37
extern void log_uuid_string (const unsigned char *uuid,
                             char string[LOG_UUID_STRING]);

/*----------------------------------------------------------------------
 * Bitmaps in memory
 */

/* The bits of the word that has BIT, from it to END or the word's last. */
static inline uint64_t
log_bits (uint64_t bit, uint64_t end)
{
  uint64_t first = ~UINT64_C (0) << bit % 64;

  return end - (bit - bit % 64) >= 64 ? first :
    first & ~(~UINT64_C (0) << end % 64);
}

static inline bool
log_test_bit (const uint64_t *map, uint64_t bit)
{
  return map[bit / 64] >> bit % 64 & 1;
}

/* How many bits are set in the first N words. */
extern uint64_t log_count_bits (const uint64_t *map, unsigned int n);
/* The next set bit in [first, end), or end. */
extern uint64_t log_next_bit (const uint64_t *map, uint64_t first,
                              uint64_t end);
extern void log_fill_bits (uint64_t *map, uint64_t end);

#endif /* DMIO_LOG_FORMAT_H */
