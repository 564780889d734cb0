/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Blocks of the log in bytes.  All numbers are little endian.  Each block
 * says what it is and where it belongs, so one that is misplaced is as bad
 * as one that is torn.
 */

#include <config.h>

#include <stdio.h>
#include <string.h>

#include "log-format.h"

/* The header, which all blocks have.  The checksum is at their end, over all
 * that is before.
 */
#define AT_MAGIC 0
#define AT_VERSION 8
#define AT_TYPE 12
#define AT_UUID 16
#define AT_SEQUENCE 32
#define AT_SLOT 40
#define AT_INDEX 44
#define AT_DATA 64
#define AT_CHECKSUM 4064
#define CHECKSUM_SIZE 32

/* The superblock. */
#define AT_GENERATION 64
#define AT_EPOCH 72
#define AT_VOLUME 80
#define AT_CHUNK 88
#define AT_NUM_LEGS 96
#define AT_NUM_HISTORY 100
#define AT_COPIES 104
#define AT_QUIET 112
#define AT_ORDERLY 116
#define AT_HISTORY 128
#define AT_LEGS 640

/* Each leg in it. */
#define LEG_SIZE 48
#define LEG_STATE 0
#define LEG_FLAGS 4
#define LEG_SECTORS 8
#define LEG_STAMP_SIZE 16
#define LEG_STAMP_MTIME 24
#define LEG_UNTIL 32
#define LEG_FLAG_STAMP 1

/* The label, and a block with a string. */
#define AT_LABEL_STATE 64
#define AT_LENGTH 64
#define AT_STRING 68

#define MAGIC "DMIO LOG"
#define MAGIC_SIZE (sizeof MAGIC - 1)  /* its NUL is not stored */

G_STATIC_ASSERT (MAGIC_SIZE == AT_VERSION - AT_MAGIC);
G_STATIC_ASSERT (AT_HISTORY + LOG_HISTORY * 8 == AT_LEGS);
G_STATIC_ASSERT (AT_LEGS + LOG_MAX_LEGS * LEG_SIZE <= AT_CHECKSUM);
G_STATIC_ASSERT (AT_DATA + LOG_BLOCK_WORDS * 8 == AT_CHECKSUM);
G_STATIC_ASSERT (AT_STRING + DM_LOG_MAX_ID <= AT_CHECKSUM);
G_STATIC_ASSERT (AT_CHECKSUM + CHECKSUM_SIZE == LOG_BLOCK);

/*----------------------------------------------------------------------
 * Geometry
 */

bool
log_geometry_init (struct log_geometry *g, sector_t volume, sector_t chunk)
{
  *g = (struct log_geometry) { 0 };
  if (volume == 0 || chunk < DM_LOG_MIN_CHUNK || chunk > DM_LOG_MAX_CHUNK ||
      (chunk & (chunk - 1)) != 0)
    return false;
  g->volume = volume;
  g->chunk = chunk;
  g->chunks = volume / chunk + (volume % chunk != 0);
  if (g->chunks > DM_LOG_MAX_CHUNKS)
    return false;
  g->map_blocks = (g->chunks + LOG_BLOCK_BITS - 1) / LOG_BLOCK_BITS;
  g->map_words = g->map_blocks * LOG_BLOCK_WORDS;
  g->blocks = log_used_blocks (g, LOG_MAX_LEGS);
  return true;
}

unsigned int
log_used_blocks (const struct log_geometry *g, unsigned int num_legs)
{
  return LOG_DIRTY_AT + g->map_blocks + num_legs * (1 + g->map_blocks);
}

unsigned int
log_leg_at (const struct log_geometry *g, unsigned int leg)
{
  return log_used_blocks (g, leg);
}

struct log_place
log_place (const struct log_geometry *g, unsigned int block)
{
  unsigned int leg, in_leg;

  if (block < LOG_LABEL_AT)
    return (struct log_place) { LOG_SUPER, 0, 0 };
  if (block < LOG_DIRTY_AT)
    return (struct log_place) { LOG_LABEL, 0, 0 };
  block -= LOG_DIRTY_AT;
  if (block < g->map_blocks)
    return (struct log_place) { LOG_DIRTY, 0, block };
  block -= g->map_blocks;
  leg = block / (1 + g->map_blocks);
  in_leg = block % (1 + g->map_blocks);
  if (in_leg == 0)
    return (struct log_place) { LOG_LEG, leg, 0 };
  return (struct log_place) { LOG_LACKING, leg, in_leg - 1 };
}

/*----------------------------------------------------------------------
 * Numbers, headers, checksums
 */

static void
put32 (void *block, size_t at, uint32_t value)
{
  value = GUINT32_TO_LE (value);
  memcpy ((char *) block + at, &value, sizeof value);
}

static void
put64 (void *block, size_t at, uint64_t value)
{
  value = GUINT64_TO_LE (value);
  memcpy ((char *) block + at, &value, sizeof value);
}

static uint32_t
get32 (const void *block, size_t at)
{
  uint32_t value;

  memcpy (&value, (const char *) block + at, sizeof value);
  return GUINT32_FROM_LE (value);
}

static uint64_t
get64 (const void *block, size_t at)
{
  uint64_t value;

  memcpy (&value, (const char *) block + at, sizeof value);
  return GUINT64_FROM_LE (value);
}

static void
get_checksum (const void *block, GChecksum *checksum,
              unsigned char digest[CHECKSUM_SIZE])
{
  gsize length = CHECKSUM_SIZE;

  g_checksum_reset (checksum);
  g_checksum_update (checksum, block, AT_CHECKSUM);
  g_checksum_get_digest (checksum, digest, &length);
}

static void
begin_block (void *block, const unsigned char *uuid, uint64_t sequence,
             struct log_place place)
{
  memset (block, 0, LOG_BLOCK);
  memcpy (block, MAGIC, MAGIC_SIZE);
  put32 (block, AT_VERSION, LOG_VERSION);
  put32 (block, AT_TYPE, place.type);
  memcpy ((char *) block + AT_UUID, uuid, LOG_UUID);
  put64 (block, AT_SEQUENCE, sequence);
  put32 (block, AT_SLOT, place.slot);
  put32 (block, AT_INDEX, place.index);
}

static void
end_block (void *block, GChecksum *checksum)
{
  get_checksum (block, checksum, (unsigned char *) block + AT_CHECKSUM);
}

bool
log_has_magic (const void *block)
{
  return memcmp (block, MAGIC, MAGIC_SIZE) == 0;
}

uint32_t
log_block_version (const void *block)
{
  return get32 (block, AT_VERSION);
}

void
log_block_uuid (const void *block, unsigned char *uuid)
{
  memcpy (uuid, (const char *) block + AT_UUID, LOG_UUID);
}

bool
log_checksum_right (const void *block, GChecksum *checksum)
{
  unsigned char digest[CHECKSUM_SIZE];

  get_checksum (block, checksum, digest);
  return memcmp (digest, (const char *) block + AT_CHECKSUM,
                 CHECKSUM_SIZE) == 0;
}

static bool
is_zero (const void *block)
{
  const char *p = block;

  return p[0] == 0 && memcmp (p, p + 1, LOG_BLOCK - 1) == 0;
}

static enum log_verdict
check_block (const void *block, enum log_type type, GChecksum *checksum)
{
  if (is_zero (block))
    return LOG_BLANK;
  if (!log_has_magic (block))
    return LOG_INVALID;
  if (log_block_version (block) != LOG_VERSION)
    return LOG_UNKNOWN;
  if (!log_checksum_right (block, checksum))
    return LOG_INVALID;
  if (get32 (block, AT_TYPE) != type)
    return LOG_INVALID;
  return LOG_VALID;
}

/* The same, and that it is of this log and belongs here. */
static enum log_verdict
check_place (const void *block, const unsigned char *uuid,
             struct log_place place, GChecksum *checksum)
{
  enum log_verdict verdict = check_block (block, place.type, checksum);

  if (verdict != LOG_VALID)
    return verdict;
  if (memcmp ((const char *) block + AT_UUID, uuid, LOG_UUID) != 0)
    return LOG_INVALID;
  if (get32 (block, AT_SLOT) != place.slot ||
      get32 (block, AT_INDEX) != place.index)
    return LOG_INVALID;
  return LOG_VALID;
}

/*----------------------------------------------------------------------
 * The superblock
 */

static void
put_leg (void *block, size_t at, const struct log_super_leg *leg)
{
  put32 (block, at + LEG_STATE, leg->state);
  put32 (block, at + LEG_FLAGS, leg->stamp.valid ? LEG_FLAG_STAMP : 0);
  put64 (block, at + LEG_SECTORS, leg->sectors);
  put64 (block, at + LEG_STAMP_SIZE, leg->stamp.size);
  put64 (block, at + LEG_STAMP_MTIME, leg->stamp.mtime);
  put64 (block, at + LEG_UNTIL, leg->until);
}

static void
get_leg (const void *block, size_t at, struct log_super_leg *leg)
{
  leg->state = get32 (block, at + LEG_STATE);
  leg->stamp.valid = get32 (block, at + LEG_FLAGS) & LEG_FLAG_STAMP;
  leg->sectors = get64 (block, at + LEG_SECTORS);
  leg->stamp.size = get64 (block, at + LEG_STAMP_SIZE);
  leg->stamp.mtime = get64 (block, at + LEG_STAMP_MTIME);
  leg->until = get64 (block, at + LEG_UNTIL);
}

void
log_encode_super (void *block, const struct log_super *super,
                  GChecksum *checksum)
{
  unsigned int i;

  begin_block (block, super->uuid, super->sequence,
               (struct log_place) { LOG_SUPER, 0, 0 });
  put64 (block, AT_GENERATION, super->generation);
  put64 (block, AT_EPOCH, super->epoch);
  put64 (block, AT_VOLUME, super->volume);
  put64 (block, AT_CHUNK, super->chunk);
  put32 (block, AT_NUM_LEGS, super->num_legs);
  put32 (block, AT_NUM_HISTORY, super->num_history);
  put64 (block, AT_COPIES, super->copies);
  put32 (block, AT_QUIET, super->quiet);
  put32 (block, AT_ORDERLY, super->orderly);
  for (i = 0; i < super->num_history; i++)
    put64 (block, AT_HISTORY + i * 8, super->history[i]);
  for (i = 0; i < super->num_legs; i++)
    put_leg (block, AT_LEGS + i * LEG_SIZE, &super->legs[i]);
  end_block (block, checksum);
}

/* What cannot have been written by this program is not trusted, although the
 * checksum is right.
 */
static bool
is_sane (const struct log_super *super)
{
  struct log_geometry g;
  unsigned int i;

  if (!log_geometry_init (&g, super->volume, super->chunk))
    return false;
  if (super->num_legs == 0 || super->num_legs > LOG_MAX_LEGS ||
      super->num_history > LOG_HISTORY ||
      super->num_history >= super->generation ||
      super->quiet > super->num_history)
    return false;
  for (i = 0; i < super->num_legs; i++)
    if (super->legs[i].state < DM_LOG_IN_SYNC ||
        super->legs[i].state > DM_LOG_FAILED)
      return false;
  return true;
}

enum log_verdict
log_decode_super (const void *block, struct log_super *super,
                  GChecksum *checksum)
{
  enum log_verdict verdict = check_block (block, LOG_SUPER, checksum);
  unsigned int i;

  if (verdict != LOG_VALID)
    return verdict;
  memset (super, 0, sizeof *super);
  memcpy (super->uuid, (const char *) block + AT_UUID, LOG_UUID);
  super->sequence = get64 (block, AT_SEQUENCE);
  super->generation = get64 (block, AT_GENERATION);
  super->epoch = get64 (block, AT_EPOCH);
  super->volume = get64 (block, AT_VOLUME);
  super->chunk = get64 (block, AT_CHUNK);
  super->num_legs = get32 (block, AT_NUM_LEGS);
  super->num_history = get32 (block, AT_NUM_HISTORY);
  super->copies = get64 (block, AT_COPIES);
  super->quiet = get32 (block, AT_QUIET);
  super->orderly = get32 (block, AT_ORDERLY) != 0;
  for (i = 0; i < LOG_HISTORY; i++)
    super->history[i] = get64 (block, AT_HISTORY + i * 8);
  for (i = 0; i < LOG_MAX_LEGS; i++)
    get_leg (block, AT_LEGS + i * LEG_SIZE, &super->legs[i]);
  return is_sane (super) ? LOG_VALID : LOG_INVALID;
}

/*----------------------------------------------------------------------
 * The other blocks
 */

void
log_encode_label (void *block, const unsigned char *uuid, unsigned int copy,
                  enum log_label_state state, GChecksum *checksum)
{
  begin_block (block, uuid, 0,
               (struct log_place) { LOG_LABEL, copy, 0 });
  put32 (block, AT_LABEL_STATE, state);
  end_block (block, checksum);
}

enum log_verdict
log_decode_label (const void *block, const unsigned char *uuid,
                  unsigned int *copy, enum log_label_state *state,
                  GChecksum *checksum)
{
  enum log_verdict verdict = check_block (block, LOG_LABEL, checksum);

  if (verdict != LOG_VALID)
    return verdict;
  if (uuid != NULL &&
      memcmp ((const char *) block + AT_UUID, uuid, LOG_UUID) != 0)
    return LOG_INVALID;
  *copy = get32 (block, AT_SLOT);
  *state = get32 (block, AT_LABEL_STATE);
  return *copy < LOG_MAX_COPIES ? LOG_VALID : LOG_INVALID;
}

static void
encode_string (void *block, const unsigned char *uuid, uint64_t sequence,
               struct log_place place, const char *string,
               GChecksum *checksum)
{
  size_t length = strlen (string);

  g_assert (length <= DM_LOG_MAX_ID);
  begin_block (block, uuid, sequence, place);
  put32 (block, AT_LENGTH, length);
  memcpy ((char *) block + AT_STRING, string, length);
  end_block (block, checksum);
}

static char *
decode_string (const void *block, const unsigned char *uuid,
               struct log_place place, uint64_t *sequence,
               GChecksum *checksum)
{
  uint32_t length;

  if (check_place (block, uuid, place, checksum) != LOG_VALID)
    return NULL;
  length = get32 (block, AT_LENGTH);
  if (length > DM_LOG_MAX_ID)
    return NULL;
  *sequence = get64 (block, AT_SEQUENCE);
  return g_strndup ((const char *) block + AT_STRING, length);
}

void
log_encode_leg (void *block, const unsigned char *uuid, uint64_t sequence,
                unsigned int leg, const char *id, GChecksum *checksum)
{
  const struct log_place place = { LOG_LEG, leg, 0 };

  encode_string (block, uuid, sequence, place, id, checksum);
}

char *
log_decode_leg (const void *block, const unsigned char *uuid,
                unsigned int leg, uint64_t *sequence, GChecksum *checksum)
{
  const struct log_place place = { LOG_LEG, leg, 0 };

  return decode_string (block, uuid, place, sequence, checksum);
}

void
log_encode_where (void *block, const unsigned char *uuid, unsigned int copy,
                  const char *where, GChecksum *checksum)
{
  const struct log_place place = { LOG_WHERE, copy, 0 };

  encode_string (block, uuid, 0, place, where, checksum);
}

char *
log_decode_where (const void *block, const unsigned char *uuid,
                  unsigned int copy, GChecksum *checksum)
{
  const struct log_place place = { LOG_WHERE, copy, 0 };
  uint64_t sequence;
  char *where = decode_string (block, uuid, place, &sequence, checksum);

  if (where != NULL && where[0] == '\0')
    g_clear_pointer (&where, g_free);
  return where;
}

void
log_encode_map (void *block, const unsigned char *uuid, uint64_t sequence,
                struct log_place place, const uint64_t *a, const uint64_t *b,
                GChecksum *checksum)
{
  unsigned int i;

  begin_block (block, uuid, sequence, place);
  for (i = 0; i < LOG_BLOCK_WORDS; i++)
    put64 (block, AT_DATA + i * 8, a[i] | b[i]);
  end_block (block, checksum);
}

enum log_verdict
log_decode_map (const void *block, const unsigned char *uuid,
                struct log_place place, uint64_t *words, uint64_t *sequence,
                GChecksum *checksum)
{
  enum log_verdict verdict = check_place (block, uuid, place, checksum);
  unsigned int i;

  if (verdict != LOG_VALID)
    return verdict;
  for (i = 0; i < LOG_BLOCK_WORDS; i++)
    words[i] = get64 (block, AT_DATA + i * 8);
  *sequence = get64 (block, AT_SEQUENCE);
  return LOG_VALID;
}

void
log_uuid_string (const unsigned char *uuid, char string[LOG_UUID_STRING])
{
  unsigned int i;

  for (i = 0; i < LOG_UUID; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10)
      *string++ = '-';
    string += snprintf (string, 3, "%02x", uuid[i]);
  }
}

/*----------------------------------------------------------------------
 * Bitmaps in memory
 */

uint64_t
log_count_bits (const uint64_t *map, unsigned int n)
{
  uint64_t count = 0;
  unsigned int i;

  for (i = 0; i < n; i++)
    count += __builtin_popcountll (map[i]);
  return count;
}

uint64_t
log_next_bit (const uint64_t *map, uint64_t first, uint64_t end)
{
  uint64_t word;

  for (; first < end; first = (first | 63) + 1) {
    word = map[first / 64] & log_bits (first, end);
    if (word != 0)
      return first - first % 64 + __builtin_ctzll (word);
  }
  return end;
}

void
log_fill_bits (uint64_t *map, uint64_t end)
{
  uint64_t bit;

  for (bit = 0; bit < end; bit = (bit | 63) + 1)
    map[bit / 64] |= log_bits (bit, end);
}
