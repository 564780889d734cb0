/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The clients of a history, which read and write, and what they can tell
 * from the answers.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "clock.h"
#include "mirror.h"
#include "sim-plan.h"

#define SECTOR DM_IO_SECTOR_SIZE
#define MAX_CLIENTS 6
#define MAX_SECTORS 320         /* of a request */
/* By then all legs have to be in sync, seconds. */
#define PATIENCE 3000

/* Each client has its own. */
static struct dm_mirror_client connections[MAX_CLIENTS];
/* What sim_news was when it was told last, or any: then a flush of it may fail once. */
static unsigned int told[MAX_CLIENTS], told_last;

static unsigned char buffers[MAX_CLIENTS][MAX_SECTORS * SECTOR];
/* Of each sector: changes in flight, and begun. */
static struct {
  unsigned int in_flight, begun;
} changes[SIM_MAX_SECTORS];

uint32_t
sim_pick (uint32_t low, uint32_t high)
{
  return low + sim_below (&sim_plan, high - low + 1);
}

/*----------------------------------------------------------------------
 * What may fail
 */

bool
sim_is_faulty (const struct sim_device *dev)
{
  return dev->failing != 0 || dev->flush_failed || dev->dead ||
    dev->bdev.offline || dev->bdev.failed || dev->num_bad > 0;
}

bool
sim_in_sync (const struct sim_record *record, const struct sim_device *dev)
{
  return dev->leg >= 0 && record->in_sync & 1UL << dev->leg;
}

/* Not while a commit is under way by which a leg joins. */
static bool
counts (const struct sim_record *record, const struct sim_device *dev)
{
  return sim_in_sync (record, dev) && phase.in_sync & 1UL << dev->leg &&
    (mirror == NULL || mirror->legs[dev->leg].state == DM_MIRROR_IN_SYNC);
}

bool
sim_must_succeed (void)
{
  unsigned int i, good_legs = 0, good_copies = 0;
  struct sim_record record;
  struct sim_device *dev;

  sim_record_read (&record, true, SIM_ALL_COPIES);
  for (i = 0; i < sim_num_devices; i++) {
    dev = sim_devices[i];
    if (!dev->present || dev->faulty)
      continue;
    if (dev->kind == SIM_COPY)  /* one that may get old writes may not be in use */
      good_copies += dev->bdev.late == 0;
    else if (counts (&record, dev))
      good_legs++;
  }
  return good_copies > 0 && good_legs >= plan.quorum;
}

/*----------------------------------------------------------------------
 * Requests
 */

static void
check_success (bool ok, const char *what)
{
  if (!ok && sim_must_succeed ())
    sim_fail ("%s fails although nothing is wrong", what);
}

/* A range of whole blocks. */
static void
pick_range (uint32_t *sector, uint32_t *count)
{
  uint32_t block = plan.block, n;

  n = sim_chance (&sim_plan, 80) ? sim_pick (1, 8) :
    sim_chance (&sim_plan, 80) ? sim_pick (1, 64) :
    sim_pick (1, MIN (2 * plan.chunk, 256));
  if (sim_chance (&sim_plan, 70))
    *sector = plan.hot + sim_pick (0, 20) - 10;
  else if (sim_chance (&sim_plan, 50))
    *sector = sim_pick (0, plan.chunks) * plan.chunk - sim_pick (0, 4);
  else
    *sector = sim_pick (0, plan.sectors - 1);
  if (*sector >= plan.sectors)
    *sector = 0;
  *sector -= *sector % block;
  n = MAX (n / block, 1) * block;
  *count = MIN (n, plan.sectors - *sector);
}

/*----------------------------------------------------------------------
 * Changes
 */

/* One of the volume, from when it is asked for to when it is answered. */
struct change {
  uint32_t sector, count;
  sim_value value;
  unsigned int flags, handle;
  unsigned int begun[MAX_SECTORS];
  unsigned long counted;        /* legs, at the beginning */
  unsigned int partial_changes; /* of the mirror, then */
  unsigned long unflushed;      /* the same: those whose flush has failed */
  unsigned int losses[SIM_MAX_LEGS];
};

/* Legs that are in sync in part and do not lack this (S5).  It waits for a lock, so what
 * else is to be known is found out after it.
 */
static unsigned long
having (const struct change *c)
{
  return dm_log_having (mirror->log, mirror->partial, c->sector, c->count);
}

static void
begin_change (struct change *c)
{
  struct sim_record record;
  uint32_t i;

  c->counted = having (c);
  sim_record_read (&record, true, SIM_ALL_COPIES);
  c->counted |= record.in_sync;
  c->partial_changes = mirror->partial_changes;
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL) {
      c->losses[i] = legs[i]->losses;
      if (legs[i]->is_unflushed)
        c->unflushed |= 1UL << i;
    }
  c->handle = sim_write_begin (c->sector, c->count, c->value);
  for (i = 0; i < c->count; i++) {
    c->begun[i] = ++changes[c->sector + i].begun;
    if (changes[c->sector + i].in_flight++ > 0)
      c->begun[i] = 0;          /* nobody knows which comes first */
  }
}

/* Has nobody else changed this sector of it meanwhile? */
static bool
is_last_change (const struct change *c, uint32_t i)
{
  return changes[c->sector + i].in_flight == 0 &&
    changes[c->sector + i].begun == c->begun[i];
}

/* Has the leg lost nothing since it began? */
static bool
has_kept (const struct change *c, const struct sim_device *leg)
{
  return leg->losses == c->losses[leg->number] && !leg->lost;
}

/* The first of its sectors that the leg has not, or COUNT. */
static uint32_t
first_lacking (const struct change *c, const struct sim_device *leg)
{
  bool fua = c->flags & DM_IO_FUA;
  uint32_t i, s = leg->start + c->sector;

  for (i = 0; i < c->count; i++)
    if (is_last_change (c, i) &&
        (leg->cached[s + i] != c->value ||
         (fua && leg->stable[s + i] != c->value)))
      break;
  return i;
}

/* W3: what is acknowledged is on each leg that is durably in sync, unless
 * it was changed again meanwhile, or lost.
 */
static void
check_leg (const struct change *c, const struct sim_record *record,
           const struct sim_device *leg)
{
  uint32_t i, s;

  if (!has_kept (c, leg) || !sim_in_sync (record, leg))
    return;
  i = first_lacking (c, leg);
  s = c->sector + i;
  if (i < c->count)
    sim_fail ("W3: sector %u was acknowledged to be %u%s, and is %u (%u) "
              "on leg %u, which the log says is in sync", s, c->value,
              c->flags & DM_IO_FUA ? " (FUA)" : "",
              leg->cached[leg->start + s], leg->stable[leg->start + s],
              leg->number);
}

/* W3: so many legs as the quorum have it that were in sync, or are.  One that has lost
 * something since had it, perhaps; one that could not be flushed all the time does not
 * count (F1).
 */
/* Not if it has been made good since the change began, and has lost something again. */
static bool
is_unflushed (const struct change *c, const struct sim_device *leg)
{
  return c->unflushed & 1UL << leg->number && leg->is_unflushed &&
    c->losses[leg->number] == leg->losses;
}

static void
check_quorum (const struct change *c, const struct sim_record *record,
              unsigned long having_it)
{
  unsigned long counted = c->counted | record->in_sync | having_it;
  unsigned int i, have = 0;

  /* Some may have counted in between. */
  if (c->partial_changes != mirror->partial_changes)
    counted |= mirror_used (mirror);
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 &&
        counted & 1UL << legs[i]->leg &&
        !is_unflushed (c, legs[i]) &&
        (!has_kept (c, legs[i]) || first_lacking (c, legs[i]) == c->count))
      have++;
  if ((unsigned) __builtin_popcountl (record->in_sync) < plan.quorum)
    sim_count (SIM_PARTIAL_QUORUM);
  if (have < plan.quorum)
    sim_fail ("W3: a write is acknowledged that %u legs have, less than the "
              "quorum", have);
}

static void
check_change (const struct change *c)
{
  unsigned long having_it = having (c);
  struct sim_record record;
  unsigned int i;

  sim_record_read (&record, true, SIM_ALL_COPIES);
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL)
      check_leg (c, &record, legs[i]);
  check_quorum (c, &record, having_it);
}

static void
end_change (const struct change *c, bool ok, bool sure)
{
  uint32_t i;

  for (i = 0; i < c->count; i++)
    changes[c->sector + i].in_flight--;
  sim_update_losses ();
  sim_trace ("%s: %u to %u+%u: %s", sim_fiber_name (sim_self ()), c->value,
             c->sector, c->count, ok ? "done" : "failed");
  sim_write_end (c->handle, !ok || !sure ? SIM_MAYBE :
                 c->flags & DM_IO_FUA ? SIM_DURABLE : SIM_DONE);
  if (ok && sure)               /* it waits for a lock, and a loss may come meanwhile */
    check_change (c);
}

static void
do_write (unsigned char *buffer)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  struct change c = { .value = sim_oracle_new_value () };
  uint32_t i;
  bool ok;

  pick_range (&c.sector, &c.count);
  c.flags = sim_chance (&sim_plan, 25) ? DM_IO_FUA : 0;
  for (i = 0; i < c.count; i++)
    sim_encode (buffer + i * SECTOR, c.value, c.sector + i);
  sim_trace ("%s: write %u to %u+%u%s", sim_fiber_name (sim_self ()),
             c.value, c.sector, c.count, c.flags != 0 ? " FUA" : "");
  begin_change (&c);
  ok = dm_mirror_write (mirror, DM_IO_WRITE, c.flags, buffer, c.sector,
                        c.count, results);
  end_change (&c, ok, true);
  check_success (ok, "a write");
}

/* A discard that one of the legs cannot do may do nothing. */
static bool
can_punch (void)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->bdev.can_punch != CAN_PUNCH)
      return false;
  return true;
}

static void
do_zero (void)
{
  enum dm_io_op op = sim_chance (&sim_plan, 50) ? DM_IO_DISCARD :
    DM_IO_WRITE_ZEROES;
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  struct change c = { .value = 0 };
  bool ok;

  pick_range (&c.sector, &c.count);
  c.flags = sim_chance (&sim_plan, 25) ? DM_IO_FUA : 0;
  if (op == DM_IO_WRITE_ZEROES && sim_chance (&sim_plan, 50))
    c.flags |= DM_IO_NO_UNMAP;
  sim_trace ("%s: op %d of %u+%u, flags %u", sim_fiber_name (sim_self ()),
             op, c.sector, c.count, c.flags);
  begin_change (&c);
  ok = dm_mirror_write (mirror, op, c.flags, NULL, c.sector, c.count,
                        results);
  end_change (&c, ok, op != DM_IO_DISCARD || can_punch ());
  check_success (ok, "zeroing");
}

/* A flush of a client has failed.  As those that have failed a flush leave if another has
 * not, that is not known of them yet if another is in sync; nor if this one has succeeded
 * there and tells of an earlier loss, while another's has just failed.
 */
static void
hear (unsigned int client, const struct dm_io_result *results)
{
  struct sim_record record;
  bool all = true;
  unsigned int i;

  told_last = told[client] = sim_news;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && sim_in_sync (&record, legs[i]))
      all = all && legs[i]->flush_failed;
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0)
      legs[i]->is_unflushed = all && legs[i]->flush_failed &&
        (legs[i]->is_unflushed || results[legs[i]->leg].error != 0);
}

static void
do_flush (unsigned int client)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS] = { { 0 } };
  uint64_t begun = sim_flush_begin ();
  bool ok;

  sim_trace ("%s: flush", sim_fiber_name (sim_self ()));
  ok = dm_mirror_flush (mirror, &connections[client], results);
  sim_update_losses ();
  sim_trace ("%s: flush: %s", sim_fiber_name (sim_self ()),
             ok ? "done" : "failed");
  if (ok)
    sim_flush_end (begun, 1U << client);
  else
    sim_flush_failed (begun, 1U << client);
  check_success (ok || told[client] != sim_news, "a flush");
  if (!ok)
    hear (client, results);
}

static void
do_reconnect (unsigned int client)
{
  sim_trace ("%s: disconnects and comes back", sim_fiber_name (sim_self ()));
  sim_count (told[client] != sim_news ? SIM_CLIENT_RETURNS_UNTOLD :
             SIM_CLIENT_RETURNS);
  sim_pause ();
  dm_mirror_client_init (mirror, &connections[client]);
  sim_client_returns (client);
  told[client] = told_last;
}

static sim_value
checked_value (const unsigned char *data, uint32_t sector)
{
  uint32_t word[2];

  memcpy (word, data, sizeof word);
  if (word[0] != 0 && word[1] != sector)
    sim_fail ("sector %u has the data of sector %u", sector, word[1]);
  return word[0];
}

/* Bad sectors that were come upon lately. */
#define MAX_NOTES 64
static struct {
  struct sim_fiber *fiber;
  struct sim_device *dev;
  uint32_t sector;
} notes[MAX_NOTES];
static unsigned int next_note;

void
sim_note_bad (struct sim_fiber *fiber, struct sim_device *dev,
              uint32_t sector)
{
  notes[next_note].fiber = fiber;
  notes[next_note].dev = dev;
  notes[next_note].sector = sector;
  next_note = (next_note + 1) % MAX_NOTES;
}

static void
forget_bad (const struct sim_fiber *fiber)
{
  unsigned int i;

  for (i = 0; i < MAX_NOTES; i++)
    if (notes[i].fiber == fiber)
      notes[i].fiber = NULL;
}

/* R1: what could not be read has been rewritten, or the leg has failed, or is just being
 * recorded as such.
 */
static void
check_repaired (const struct sim_fiber *fiber)
{
  struct sim_record record;
  unsigned int i;

  if (!sim_must_succeed ())
    return;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  for (i = 0; i < MAX_NOTES; i++)
    if (notes[i].fiber == fiber && sim_in_sync (&record, notes[i].dev) &&
        mirror_in_sync (mirror) & 1UL << notes[i].dev->leg &&
        notes[i].dev->flags[notes[i].sector] & SIM_BAD)
      sim_fail ("R1: sector %u of leg %u could not be read, was not "
                "rewritten, and the leg is in sync",
                notes[i].sector - notes[i].dev->start, notes[i].dev->number);
}

/* All legs that are durably in sync have this now. */
static bool
legs_agree (const struct sim_record *record, uint32_t sector,
            sim_value value)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && sim_in_sync (record, legs[i]) &&
        legs[i]->cached[legs[i]->start + sector] != value)
      return false;
  return true;
}

/* What was read.  It has to be what is read from now on; also after the next
 * power cut, if all legs have it (R2).
 */
static void
check_data (uint64_t begun, const unsigned char *data, uint32_t sector,
            uint32_t count)
{
  struct sim_record record;
  sim_value value;

  sim_record_read (&record, true, SIM_ALL_COPIES);
  for (; count > 0; count--, sector++, data += SECTOR) {
    value = checked_value (data, sector);
    sim_read_value (begun, sector, value,
                    legs_agree (&record, sector, value));
  }
}

static void
read_range (unsigned char *buffer, uint32_t sector, uint32_t count)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  uint64_t begun = sim_read_begin ();
  uint32_t i;
  bool ok;

  forget_bad (sim_self ());
  sim_trace ("%s: read %u+%u", sim_fiber_name (sim_self ()), sector, count);
  for (i = 0; i < count; i++)
    memset (buffer + i * SECTOR, 0xff, 8);
  if (mirror->partial != 0)
    sim_count (SIM_PARTIAL_READ);
  ok = dm_mirror_read (mirror, buffer, sector, count, results);
  sim_update_losses ();
  sim_trace ("%s: read of %u+%u: %s", sim_fiber_name (sim_self ()), sector,
             count, ok ? "done" : "failed");
  if (ok)
    check_data (begun, buffer, sector, count);
  sim_read_done (begun);
  check_success (ok, "a read");
  if (ok)
    check_repaired (sim_self ());
}

static void
do_read (unsigned char *buffer)
{
  uint32_t sector, count;

  pick_range (&sector, &count);
  read_range (buffer, sector, count);
}

/* What is said to be zero has to be. */
static void
do_extents (void)
{
  struct bdev_extent extents[8];
  uint32_t sector, count, n;
  uint64_t begun;
  int i, r;

  pick_range (&sector, &count);
  begun = sim_read_begin ();
  r = dm_mirror_extents (mirror, sector, count, extents, 8);
  sim_update_losses ();
  for (i = 0; i < r; i++)
    for (n = extents[i].length / SECTOR; n > 0 && sector < plan.sectors; n--)
      if (extents[i].zero)
        sim_read_value (begun, sector++, 0, false);
      else
        sector++;
  sim_read_done (begun);
  check_success (r > 0, "a question for extents");
}

/*----------------------------------------------------------------------
 * Clients
 */

void
sim_pause (void)
{
  static const uint64_t longest[] = {
    0, 100 * 1000, 100 * 1000 * 1000, UINT64_C (10000000000),
  };

  if (plan.pause > 0 && sim_chance (&sim_plan, 50))
    sim_sleep (sim_next (&sim_plan) % longest[plan.pause]);
}

static void *
client (void *arg)
{
  unsigned char *buffer = arg;
  unsigned int number = (buffer - buffers[0]) / sizeof buffers[0], i;

  for (i = 0; i < plan.requests; i++) {
    sim_pause ();
    if (told[number] != sim_news && sim_chance (&sim_plan, 20))
      do_reconnect (number);
    if (told[number] != sim_news && sim_chance (&sim_plan, 40))
      do_read (buffer);
    switch (sim_below (&sim_plan, 17)) {
    case 16:
      do_reconnect (number);
      break;
    case 0: case 1:
      do_flush (number);
      break;
    case 2: case 3:
      do_zero ();
      break;
    case 4:
      do_extents ();
      break;
    case 5: case 6: case 7: case 8:
      do_read (buffer);
      break;
    default:
      do_write (buffer);
    }
  }
  return NULL;
}

/*----------------------------------------------------------------------
 * All of them
 */

void
sim_count_in_recovery (enum sim_event event)
{
  if (mirror != NULL && plan.resync_rate != 0 && mirror_recovering (mirror) != 0)
    sim_count (event);
}

void
sim_run_clients (void)
{
  struct sim_fiber *fibers[MAX_CLIENTS + 2];
  unsigned int n = 0, i;

  memset (changes, 0, plan.sectors * sizeof changes[0]);
  memset (notes, 0, sizeof notes);
  for (i = 0; i < plan.clients; i++) {
    dm_mirror_client_init (mirror, &connections[i]);
    told_last = told[i] = sim_news;
    fibers[n++] = sim_spawn (client, buffers[i], "client");
  }
  if (plan.faults > 0) {
    fibers[n++] = sim_spawn (sim_bad_luck, NULL, "bad luck");
    fibers[n++] = sim_spawn (sim_user, NULL, "user");
  }
  while (n > 0)
    sim_join (fibers[--n]);
  if (sim_chance (&sim_plan, 20))
    sim_sleep (sim_next (&sim_plan) % UINT64_C (20000000000));
}

static bool
is_left_out (const struct dm_mirror_leg_status *status)
{
  return status->state == DM_MIRROR_MISSING ||
    (status->state == DM_MIRROR_FAILED && status->by_user);
}

static void
add_failed_legs (void)
{
  struct dm_mirror_status status;
  unsigned int i;

  dm_mirror_get_status (mirror, &status);
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 &&
        is_left_out (&status.legs[legs[i]->leg]))
      sim_add_leg (legs[i]);
  dm_mirror_status_clear (&status);
}

static void
read_all (void)
{
  uint32_t s;

  for (s = 0; s < plan.sectors; s += MAX_SECTORS - MAX_SECTORS % 8)
    read_range (buffers[MAX_CLIENTS - 1], s,
                MIN (MAX_SECTORS, plan.sectors - s));
}

void
sim_settle (void)
{
  unsigned int i;

  sim_oracle_weak (false);
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL)
      legs[i]->present = true;
  add_failed_legs ();
  read_all ();
  for (i = 0; i < PATIENCE && !dm_mirror_is_in_sync (mirror); i++)
    sim_sleep (NSEC_PER_SEC);
  if (i == PATIENCE)
    sim_fail ("not in sync after %d seconds", PATIENCE);
  read_all ();
}
