/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What may be read from each sector.  A sector has a list of writes whose
 * value it may hold, now or after a power cut.  Time here is a count of
 * the events that clients see: requests that begin and end.
 *
 * Before the next cut: a write is over, and must not be read by who begins
 * to read afterwards, once one that began after its end has succeeded, or
 * another value that is surely not older has been read.  So whatever is
 * read decides between the values that were possible, and none comes back.
 *
 * After a cut, a write can come back until it is gone: it was over, by a
 * successful write, before a successful flush began; or one with FUA
 * that began after its end has succeeded.  All that are not gone are
 * possible again, and in no order.
 *
 * While caches are being lost, what is acknowledged may be replaced by what was before
 * it; but once that has been read it does not come back (F1).
 *
 * A write that failed, or was in flight at a cut, may have been done or not.
 * The end of the process alone, if no cache is lost, undoes nothing that was over by a
 * success.  A leg that loses its cache is like a cut only if no other leg can stand
 * in (sim_oracle_weak); and then as well a flush that succeeds
 * has to have what had been acknowledged, unless one of the same client has failed
 * since (F1): what that one did not make durable may be lost later, too.
 */

#include <config.h>

#include <string.h>

#include <glib.h>

#include "sim-plan.h"

#define MAX_RECORDS 65536
#define MAX_WRITES 64
#define NOT_YET UINT32_MAX

enum status { IN_FLIGHT, OK, MAYBE };

/* A value that a sector may hold. */
struct record {
  sim_value value;
  uint32_t begin, end;          /* of the write */
  uint32_t dead;                /* since when it cannot be read; 0: it can */
  uint32_t over;                /* since when it is over by a success; 0 */
  enum status status;
  uint32_t seen;                /* since when it has been read; 0 */
  uint32_t passed;              /* since when an older one was read then; 0 */
  bool gone;                    /* a cut cannot bring it back */
  bool old;                     /* from before the last power cut */
  uint32_t told;                /* clients who know that it may be lost */
  uint32_t next;                /* record of the sector; 0: the last */
};

struct write {
  bool used;
  uint32_t sector, count;
  sim_value value;
  uint32_t begin;
};

static struct record records[MAX_RECORDS];
static uint32_t num_records, free_records;
static struct write writes[MAX_WRITES];

static uint32_t num_sectors;
static sim_value *only;         /* of a sector without a list */
static uint32_t *lists;         /* its first record, or 0 */
static uint32_t *listed;        /* sectors with a list */
static uint32_t num_listed;

static uint32_t event;
static sim_value last_value;
static bool weak, lost;
static uint32_t loss_known;     /* until then caches were being lost, last */
static uint32_t reading[MAX_WRITES]; /* when the reads in flight began */
static unsigned int num_reading;

void
sim_oracle_init (uint32_t sectors)
{
  only = g_renew (sim_value, only, sectors);
  lists = g_renew (uint32_t, lists, sectors);
  listed = g_renew (uint32_t, listed, sectors);
  memset (only, 0, sectors * sizeof only[0]);
  memset (lists, 0, sectors * sizeof lists[0]);
  memset (writes, 0, sizeof writes);
  num_sectors = sectors;
  num_records = 1;
  free_records = num_listed = num_reading = 0;
  event = 1;
  last_value = 0;
  weak = lost = false;
  loss_known = 0;
}

void
sim_oracle_set (uint32_t sector, sim_value value)
{
  only[sector] = value;
  if (value > last_value)
    last_value = value;
}

sim_value
sim_oracle_new_value (void)
{
  return ++last_value;
}

/*----------------------------------------------------------------------
 * Lists
 */

static struct record *
push (uint32_t sector, const struct record *record)
{
  uint32_t i = free_records;

  if (i != 0)
    free_records = records[i].next;
  else if (num_records < MAX_RECORDS)
    i = num_records++;
  else
    sim_fail ("the oracle has no room");
  records[i] = *record;
  records[i].next = lists[sector];
  lists[sector] = i;
  return &records[i];
}

/* Give the sector a list, of what it holds. */
static void
make_list (uint32_t sector)
{
  struct record r = { .value = only[sector], .begin = 1, .end = 1,
                      .status = OK };

  if (lists[sector] != 0)
    return;
  push (sector, &r);
  listed[num_listed++] = sector;
}

#define FOR_EACH(r, sector) \
  for (r = &records[lists[sector]]; r != records; r = &records[r->next])

/* The last time that a read in flight may still remember. */
static uint32_t
oldest_read (void)
{
  uint32_t oldest = event;
  unsigned int i;

  for (i = 0; i < num_reading; i++)
    oldest = MIN (oldest, reading[i]);
  return oldest;
}

/* Drop the records that can never be read again. */
static void
compact (uint32_t sector, uint32_t oldest)
{
  uint32_t *link = &lists[sector], i;
  struct record *r;

  while ((i = *link) != 0) {
    r = &records[i];
    if (r->gone && r->dead != 0 && r->dead < oldest) {
      *link = r->next;
      r->next = free_records;
      free_records = i;
    }
    else
      link = &r->next;
  }
}

/* The same for all sectors; those with one record need no list. */
static void
compact_all (void)
{
  uint32_t i, n = 0, sector, oldest = oldest_read (), first;

  for (i = 0; i < num_listed; i++) {
    sector = listed[i];
    compact (sector, oldest);
    first = lists[sector];
    if (first == 0)
      sim_fail ("the oracle knows no value for sector %u", sector);
    if (records[first].next != 0 || records[first].status == IN_FLIGHT) {
      listed[n++] = sector;
      continue;
    }
    only[sector] = records[first].value;
    records[first].next = free_records;
    free_records = first;
    lists[sector] = 0;
  }
  num_listed = n;
}

/*----------------------------------------------------------------------
 * Writes
 */

unsigned int
sim_write_begin (uint32_t sector, uint32_t count, sim_value value)
{
  struct record r = { .value = value, .begin = ++event, .end = NOT_YET };
  unsigned int w;
  uint32_t i;

  for (w = 0; w < MAX_WRITES && writes[w].used; w++)
    ;
  g_assert (w < MAX_WRITES);
  writes[w] = (struct write) {
    .used = true, .sector = sector, .count = count, .value = value,
    .begin = event,
  };
  for (i = sector; i < sector + count; i++) {
    make_list (i);
    push (i, &r);
  }
  return w;
}

/* Was it over, or had it ended, before that time? */
static bool
precedes (const struct record *r, uint32_t time)
{
  return r->end < time || (r->over != 0 && r->over < time);
}

/* A write has succeeded: what precedes it is over. */
static void
succeed (uint32_t sector, struct record *by, bool durable)
{
  struct record *r;

  FOR_EACH (r, sector) {
    if (r == by || r->status == IN_FLIGHT || !precedes (r, by->begin))
      continue;
    if (r->dead == 0)
      r->dead = event;
    if (r->over == 0)
      r->over = event;
    if (durable)
      r->gone = true;
  }
}

void
sim_write_end (unsigned int write, enum sim_outcome outcome)
{
  struct write *w = &writes[write];
  struct record *r;
  uint32_t i;

  event++;
  for (i = w->sector; i < w->sector + w->count; i++) {
    FOR_EACH (r, i)
      if (r->begin == w->begin && r->status == IN_FLIGHT)
        break;
    r->end = event;
    r->status = outcome == SIM_MAYBE ? MAYBE : OK;
    if (outcome != SIM_MAYBE)
      succeed (i, r, outcome == SIM_DURABLE);
  }
  w->used = false;
}

/*----------------------------------------------------------------------
 * Reads
 */

uint64_t
sim_read_begin (void)
{
  g_assert (num_reading < MAX_WRITES);
  reading[num_reading++] = ++event;
  return event;
}

void
sim_read_done (uint64_t begun)
{
  unsigned int i;

  for (i = 0; reading[i] != begun; i++)
    ;
  reading[i] = reading[--num_reading];
}

static void
wrong_value (uint32_t sector, sim_value value)
{
  GString *s = g_string_new (NULL);
  struct record *r;

  FOR_EACH (r, sector)
    g_string_append_printf (s, " %u%s%s%s%s", r->value,
                            r->passed != 0 ? "(was read before an older one)" :
                            "",
                            r->dead != 0 ? "(overwritten)" : "",
                            r->gone ? "(durably)" : "",
                            r->status == MAYBE ? "(maybe)" :
                            r->status == IN_FLIGHT ? "(in flight)" : "");
  sim_fail ("sector %u (chunk %u) holds %u, not one of:%s", sector,
            sector / plan.chunk, value,
            lists[sector] == 0 ? " " : s->str);
}

/* VALUE was read, of a write that ended at END: what is newer, and was read before, has
 * been lost.
 */
static void
pass (uint32_t sector, sim_value value, uint64_t begun, uint32_t end)
{
  struct record *r;

  FOR_EACH (r, sector) {
    if (r->value == value && r->seen == 0)
      r->seen = event;
    else if (r->value != value && r->seen != 0 && r->seen < begun &&
             r->passed == 0 && r->status != IN_FLIGHT && r->begin > end) {
      sim_count (SIM_READ_PASSES);
      r->passed = event;
    }
  }
}

/* VALUE was read, so what surely precedes it is over; unless it may have been read before
 * a loss that is known by now.  If it has survived a power cut and is settled, it survives
 * the next one, and what it was read instead of does not come back (R2).
 */
static void
decide (uint32_t sector, sim_value value, uint64_t begun, uint32_t since,
        bool ok, bool old)
{
  struct record *r;

  if (weak || begun < loss_known)
    return;
  FOR_EACH (r, sector) {
    if (r->value == value || r->status == IN_FLIGHT || !precedes (r, since))
      continue;
    if (r->dead == 0)
      r->dead = event;
    if (r->over == 0 && ok)
      r->over = event;
    if (old && r->old)
      r->gone = true;
  }
}

void
sim_read_value (uint64_t begun, uint32_t sector, sim_value value,
                bool settled)
{
  uint32_t since = NOT_YET, end = 0, matches = 0;
  struct record *r;
  bool ok = true, old = settled;

  if (lists[sector] == 0) {
    if (only[sector] != value)
      sim_fail ("sector %u (chunk %u) holds %u, not %u", sector,
                sector / plan.chunk, value, only[sector]);
    return;
  }
  FOR_EACH (r, sector) {
    if (r->value != value || (r->dead != 0 && r->dead < begun) ||
        (r->passed != 0 && r->passed < begun))
      continue;
    matches++;
    end = MAX (end, r->end);
    since = MIN (since, r->begin);
    ok = ok && r->status == OK;
    old = old && r->old;
  }
  if (matches == 0)
    wrong_value (sector, value);
  event++;
  if (weak)
    sim_count (SIM_READ_WEAK);
  pass (sector, value, begun, end);
  decide (sector, value, begun, MAX (since, begun), ok, old);
}

/*----------------------------------------------------------------------
 * Flushes and cuts
 */

uint64_t
sim_flush_begin (void)
{
  return ++event;
}

void
sim_flush_end (uint64_t begun, unsigned int clients)
{
  struct record *r;
  uint32_t i;

  event++;
  for (i = 0; i < num_listed; i++)
    FOR_EACH (r, listed[i])
      if (r->over != 0 && r->over < begun && (r->told & clients) == 0) {
        r->gone = true;
        if (r->dead == 0)
          r->dead = event;
      }
  compact_all ();
}

void
sim_flush_failed (uint64_t begun, unsigned int clients)
{
  struct record *r;
  uint32_t i;

  event++;
  for (i = 0; i < num_listed; i++)
    FOR_EACH (r, listed[i]) {
      r->told |= clients;
      if (lost && r->status == OK)
        r->status = MAYBE;
    }
}

void
sim_client_returns (unsigned int client)
{
  struct record *r;
  uint32_t i;

  for (i = 0; i < num_listed; i++)
    FOR_EACH (r, listed[i])
      if (r->told != 0)
        r->told |= 1U << client;
}

/* All that is not gone can be read again. */
static void
bring_back (void)
{
  struct record *r;
  uint32_t i;

  for (i = 0; i < num_listed; i++)
    FOR_EACH (r, listed[i])
      if (!r->gone)
        r->dead = 0;
}

void
sim_oracle_weak (bool is_weak)
{
  if (is_weak == weak && !is_weak)
    return;
  weak = is_weak;
  lost = true;
  loss_known = ++event;
  bring_back ();
}

void
sim_oracle_cut (bool power, bool kept)
{
  struct record *r;
  uint32_t i;

  kept = kept && !weak && !lost;
  if (kept)
    sim_count (SIM_KILL_KEEPS);

  event++;
  for (i = 0; i < num_listed; i++)
    FOR_EACH (r, listed[i]) {
      r->status = OK;
      r->begin = r->end = event;
      r->dead = r->gone || (kept && r->over != 0) ? event : 0;
      r->over = r->told = r->seen = r->passed = 0;
      r->old = power;
    }
  event++;
  num_reading = 0;
  memset (writes, 0, sizeof writes);
  weak = lost = false;
  event++;
  compact_all ();
}
