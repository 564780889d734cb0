/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What goes wrong in a history, and what that excuses: bad luck, which is
 * a fiber as well, and a user who fails and adds legs.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "clock.h"
#include "log-private.h"
#include "mirror.h"
#include "sim-plan.h"

/*----------------------------------------------------------------------
 * What may be lost
 */

/* A leg in sync that nothing is wrong with, so that it makes up for what
 * others lose.  Not one that the user has failed, though no log has that yet.
 */
static bool
is_sound (const struct sim_record *record, const struct sim_device *dev)
{
  return dev->kind == SIM_LEG && dev->present && sim_in_sync (record, dev) &&
    (mirror == NULL || mirror->legs[dev->leg].state == DM_MIRROR_IN_SYNC) &&
    !dev->lost && !dev->leaving && !sim_is_faulty (dev);
}

/* Does the mirror, by now, know of the loss and go on without, or with nothing
 * else?
 */
static bool
loss_is_settled (const struct sim_record *record,
                 const struct sim_device *dev)
{
  if (!sim_in_sync (record, dev))
    return true;
  return !sim_is_faulty (dev) && record->in_sync == 1UL << dev->leg;
}

/* To be called when a fault begins, and before anything is judged. */
void
sim_update_losses (void)
{
  bool any = false, sound = false;
  struct sim_record record;
  unsigned int i;

  sim_note_looked (0);
  for (i = 0; i < sim_num_devices; i++)
    any |= sim_devices[i]->lost;
  if (!any)
    return;
  any = false;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  for (i = 0; i < sim_num_devices; i++) {
    if (sim_devices[i]->lost && loss_is_settled (&record, sim_devices[i]))
      sim_devices[i]->lost = false;
    any |= sim_devices[i]->lost;
    sound |= is_sound (&record, sim_devices[i]);
  }
  if (any && !sound)
    sim_oracle_weak (true);
  else if (!any)
    sim_oracle_weak (false);
}

void
sim_cache_lost (struct sim_device *dev)
{
  dev->faulty = true;
  if (dev->kind != SIM_LEG)
    return;
  phase.lossy = dev->lost = true;
  dev->losses++;
  sim_news++;
  sim_update_losses ();
}

bool
sim_is_alone (const struct sim_device *dev)
{
  struct sim_record record;

  sim_record_read (&record, true, SIM_ALL_COPIES);
  return dev->leg >= 0 && record.in_sync == 1UL << dev->leg;
}

/*----------------------------------------------------------------------
 * Bad luck
 */

static uint64_t
some_time (void)
{
  static const uint64_t longest[] = {
    UINT64_C (1000000), UINT64_C (1000000000), UINT64_C (30000000000),
    SIM_NEVER / 4,
  };

  return sim_now + sim_next (&sim_plan) % longest[sim_below (&sim_plan, 4)];
}

static void
start_failing (struct sim_device *dev)
{
  static const int errnos[] = { EIO, ENOSPC, ETIMEDOUT, EROFS };
  static const unsigned char chances[] = { 100, 100, 50, 10 };

  dev->failing = sim_pick (1, 7);
  dev->fail_chance = chances[sim_below (&sim_plan, 4)];
  dev->fail_errno = errnos[sim_below (&sim_plan, 4)];
  dev->fail_until = some_time ();
}

static void
make_bad_sectors (struct sim_device *dev)
{
  uint32_t n = sim_pick (1, 4), s = dev->start + sim_pick (0, plan.sectors - 1);

  for (; n > 0 && s < dev->sectors; n--, s++)
    if (!(dev->flags[s] & (SIM_BAD | SIM_DIRTY))) {
      dev->flags[s] |= SIM_BAD;
      dev->num_bad++;
    }
}

void
sim_set_clock (void)
{
  static const uint64_t errors[] = { 0, 1, 20, 3600, 100 * 86400 };
  uint64_t error = errors[sim_below (&sim_plan, 5)] * NSEC_PER_SEC;

  sim_clock_error = sim_chance (&sim_plan, 50) ? error : -error;
  sim_trace ("the clock is wrong by %g s", sim_clock_error / 1e9);
}

static void
strike (struct sim_device *dev, unsigned int kind)
{
  dev->faulty = true;
  sim_count_in_recovery (SIM_FAULT_RECOVERY);
  sim_trace ("%s: fault %u", dev->name, kind);
  if (kind < 4)
    start_failing (dev);
  else if (kind < 7)
    sim_disconnect (dev, some_time ());
  else if (kind == 7 && dev->kind == SIM_LEG)
    make_bad_sectors (dev);
  else if (kind == 8)
    dev->slow_until = sim_now +
      sim_next (&sim_plan) % UINT64_C (20000000000);
  else if (kind == 9) {
    dev->dead = true;
    dev->bdev.offline = true;
    sim_io_abort (dev, EIO);
    sim_lose_cache (dev);
    sim_cache_lost (dev);
  }
  sim_update_losses ();
}

/* The other of a leg and the copy of the log beside it, or NULL. */
static struct sim_device *
beside (const struct sim_device *dev)
{
  if (!plan.beside || dev->number >= plan.num_legs ||
      dev->number >= plan.num_copies)
    return NULL;
  return dev->kind == SIM_LEG ? copies[dev->number] : legs[dev->number];
}

/* So that there is something to be late. */
static void
await_change (struct sim_device *dev)
{
  dev->awaited = true;
  sim_block (&dev->awaited, sim_now + NSEC_PER_SEC, "a change");
  dev->awaited = false;
}

/* What is on one disk often fails at once. */
static void
strike_one (void)
{
  struct sim_device *dev = sim_devices[sim_below (&sim_plan, sim_num_devices)];
  struct sim_device *other = beside (dev);
  unsigned int kind = sim_below (&sim_plan, 10);

  if (dev->bdev.late > 0)
    await_change (dev);
  strike (dev, kind);
  if (other != NULL && sim_chance (&sim_plan, 70))
    strike (other, kind);
}

void *
sim_bad_luck (void *unused)
{
  unsigned int i;

  for (i = 0; i < plan.faults; i++) {
    if (sim_chance (&sim_plan, 50))
      sim_sleep (sim_next (&sim_plan) % 300000);
    else
      sim_sleep (sim_next (&sim_plan) % UINT64_C (5000000000));
    if (plan.clock_jumps && sim_chance (&sim_plan, 50))
      sim_set_clock ();
    strike_one ();
  }
  return NULL;
}

/*----------------------------------------------------------------------
 * Others, who write to files that are legs
 *
 * The library notices by size and time.  It cannot in the seconds of the lease after the
 * last write of a server that has crashed, nor in those that writes to a leg that leaves
 * may take to arrive, or a request that was sent to other legs, too; nor if the clock is
 * wrong: what is done then is not simulated.
 */

#define LEASE (UINT64_C (16) * NSEC_PER_SEC)
#define LATE (UINT64_C (1100) * 1000 * 1000)

unsigned long
sim_edited (void)
{
  unsigned long set = 0;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 && legs[i]->edited)
      set |= 1UL << legs[i]->leg;
  return set;
}

static bool
is_used (const struct sim_device *dev)
{
  enum dm_mirror_state state = mirror->legs[dev->leg].state;

  return state == DM_MIRROR_IN_SYNC || state == DM_MIRROR_RECOVERING;
}

/* Is all that is known of what legs lack durable? */
static bool
is_recorded (const struct dm_log *log)
{
  return !log->dead && !log->leading &&
    log_next_bit (log->sets, 0, log->g.blocks) == log->g.blocks;
}

/* And what was seen is durable; or all has been copied to it, durably. */
static bool
was_looked_at (const struct sim_device *dev)
{
  struct sim_record record;

  if (mirror == NULL || !is_used (dev))
    return false;
  if (mirror->legs[dev->leg].state == DM_MIRROR_IN_SYNC ||
      is_recorded (mirror->log))
    return true;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  return sim_in_sync (&record, dev);
}

void
sim_note_looked (unsigned long set)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++) {
    if (legs[i] == NULL || legs[i]->leg < 0)
      continue;
    if (was_looked_at (legs[i]))
      legs[i]->was_used = true;
    else if (legs[i]->remote || !(set & 1UL << legs[i]->leg))
      continue;
    legs[i]->edited = legs[i]->behind = false;
  }
}

void
sim_note_joined (void)
{
  struct sim_record record;
  unsigned int i;

  sim_record_read (&record, true, SIM_ALL_COPIES);
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && sim_in_sync (&record, legs[i]))
      legs[i]->edited = legs[i]->behind = false;
}

/* A superblock that has come late says that these are in sync, too: they had all, when the server
 * was killed.
 */
void
sim_note_late (unsigned long in_sync, uint64_t killed)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 && in_sync & 1UL << legs[i]->leg &&
        legs[i]->mtime_set_at <= killed)
      legs[i]->edited = legs[i]->behind = false;
}

/* Legs that were set back to what these copies of the log know. */
unsigned long
sim_as_known (const struct sim_record *seen)
{
  unsigned long set = 0;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 && legs[i]->edited &&
        legs[i]->mtime == seen->stamp[legs[i]->leg])
      set |= 1UL << legs[i]->leg;
  return set;
}

/* A leg in sync that is not what the log takes it for, and can be told from what it was
 * only if others are there.
 */
static bool
needs_others (const struct sim_device *dev)
{
  struct sim_record record;

  if (dev == NULL || !(dev->behind || (dev->remote && dev->edited)))
    return false;
  sim_record_read (&record, false, SIM_ALL_COPIES);
  return sim_in_sync (&record, dev);
}

static bool
any_needs_others (void)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (needs_others (legs[i]))
      return true;
  return false;
}

/* Can it be known later what it was like? */
static bool
can_edit (const struct sim_device *dev)
{
  struct sim_record record;

  if (dev == NULL || dev->leg < 0 || dev->remote || plan.clock_jumps ||
      sim_is_busy (dev))
    return false;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  return record.stamp[dev->leg] != 0 ||
    (dev->was_used && !sim_in_sync (&record, dev));
}

static void
edit (struct sim_device *dev, enum sim_event event)
{
  uint32_t first = dev->start + sim_pick (0, plan.sectors - 1);

  unsigned int kind = sim_below (&sim_plan, 8);

  sim_count (event);
  if (kind == 0) {
    sim_count (SIM_BLANK_LEG);
    sim_device_blank (dev);
    sim_edited_now (dev);
  }
  else if (kind == 1 && dev->saved) {
    sim_set_back (dev);
    sim_edited_now (dev);
  }
  else if (kind < 4)
    sim_edit (dev, dev->start, plan.sectors);
  else
    sim_edit (dev, first, sim_pick (1, 64));
}

void
sim_edit_unserved (bool in_order)
{
  struct sim_device *dev = legs[sim_below (&sim_plan, plan.num_legs)];
  struct sim_record record;

  if (!sim_chance (&sim_plan, 20) || !can_edit (dev) || any_needs_others ())
    return;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  /* Who has edited all has nothing left to be copied from. */
  if ((record.in_sync & ~sim_edited () & ~(1UL << dev->leg)) == 0 &&
      sim_chance (&sim_plan, 80))
    return;
  if (!in_order || record.dirty)
    sim_now += LEASE;
  edit (dev, SIM_EDIT_UNSERVED);
}

/*----------------------------------------------------------------------
 * What is not what it was: blank, or an older state of itself
 *
 * There is always a copy of the log that knows all; without one there is nothing by
 * which the library could know better.  After a crash a leg that was set back with its
 * time can be known by another that was written since; one without others cannot, nor
 * one to a time within the lease.  A remote leg, which has no time, is known by samples,
 * which see all of a small volume that is clean.
 */

#define SAMPLED 512             /* sectors, of which all are */

/* Not what a power cut may take back, and with it an epoch: then this copy would know what
 * the others never will, as if it had been used alone, and a start is refused, rightly.
 */
void
sim_save_some (void)
{
  unsigned int i;

  if (sim_chance (&sim_plan, 70))
    return;
  for (i = 0; i < sim_num_devices; i++)
    if (!sim_devices[i]->saved &&
        (sim_devices[i]->kind != SIM_COPY || sim_devices[i]->num_dirty == 0))
      sim_save (sim_devices[i]);
}

/* What the copies say is durable, as after a power cut. */
static bool
copies_are_stable (void)
{
  unsigned int i, n = 0;

  for (i = 0; i < plan.num_copies; i++)
    n += copies[i]->num_dirty;
  return n == 0;
}

/* Is another copy current, and stays so, so that this one is not needed? */
static bool
can_do_without (const struct sim_device *copy)
{
  struct sim_record record;

  sim_record_read (&record, false, SIM_ALL_COPIES);
  return copies_are_stable () && (record.current & ~(1UL << copy->number)) != 0;
}

static void
blank_copy (struct sim_device *dev)
{
  if (!can_do_without (dev) || any_needs_others ())
    return;
  phase.blank = true;
  sim_trace ("%s is blank", dev->name);
  sim_count (SIM_BLANK_COPY);
  sim_device_blank (dev);
  sim_late_forget (dev);        /* it is another file */
}

/* The same, and it will be there: or nothing shows that this one and its leg are old. */
static bool
another_is_seen (const struct sim_device *copy)
{
  struct sim_record record;
  unsigned int i;

  sim_record_read (&record, false, SIM_ALL_COPIES);
  for (i = 0; i < plan.num_copies; i++)
    if (copies[i] != copy && copies[i]->present && record.current & 1UL << i)
      return true;
  return false;
}

static bool
set_copy_back (struct sim_device *dev)
{
  if (!dev->saved || !can_do_without (dev) || dev->bdev.late > 0 ||
      any_needs_others ())
    return false;
  if (!sim_record_set_back (dev)) {
    sim_device_blank (dev);
    phase.blank = true;
    return false;
  }
  sim_count (SIM_OLD_COPY);
  return true;
}

/* Is there another that has surely been written since that leg was quiet, and is believed? */
static bool
other_was_written (const struct sim_record *record,
                   const struct sim_device *dev)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i] != dev && sim_in_sync (record, legs[i]) &&
        legs[i]->present && !legs[i]->remote && !legs[i]->edited &&
        !(sim_beside_old_copies () & 1UL << legs[i]->leg) &&
        record->stamp[legs[i]->leg] != 0 &&
        legs[i]->mtime > record->latest_stamp[legs[i]->leg] &&
        legs[i]->mtime > record->stamp[dev->leg])
      return true;
  return false;
}

/* With its time. */
static bool
set_leg_back (struct sim_device *dev)
{
  struct sim_record record;

  sim_record_read (&record, true, SIM_ALL_COPIES);
  if (!dev->saved || !copies_are_stable () || !can_edit (dev) ||
      record.stamp[dev->leg] == 0 || any_needs_others () ||
      dev->saved_mtime == dev->mtime)
    return false;
  if (dev->saved_mtime < record.stamp[dev->leg]) {
    sim_count (SIM_OLD_LEG);
    sim_set_back (dev);
    dev->edited = true;
    return true;
  }
  if (dev->saved_mtime > record.stamp[dev->leg] || !record.dirty ||
      phase.blank || !sim_in_sync (&record, dev) ||
      !other_was_written (&record, dev))
    return false;
  sim_count (SIM_OLD_AFTER_CRASH);
  sim_set_back (dev);
  dev->behind = true;
  return true;
}

/* The samples would show that. */
static bool
can_be_other_disk (const struct sim_device *dev)
{
  struct sim_record record;
  unsigned int i;

  if (dev->leg < 0 || !dev->remote || sim_late_pending (dev) ||
      dev->bdev.block_size != DM_IO_SECTOR_SIZE ||
      plan.sectors > SAMPLED || !copies_are_stable () || any_needs_others ())
    return false;
  for (i = 0; i < sim_num_devices; i++)
    if (sim_devices[i]->num_bad > 0)
      return false;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  return !record.dirty &&
    (record.in_sync & ~sim_edited () & ~(1UL << dev->leg)) != 0;
}

static void
put_other_disk (struct sim_device *dev)
{
  if (!can_be_other_disk (dev))
    return;
  sim_count (SIM_OTHER_DISK);
  if (dev->saved && sim_chance (&sim_plan, 50) &&
      memcmp (dev->saved_values, dev->cached,
              dev->sectors * sizeof dev->cached[0]) != 0)
    sim_set_back (dev);
  else
    sim_edit (dev, dev->start, plan.sectors);
  dev->edited = true;
}

void
sim_replace_some (void)
{
  struct sim_device *leg = legs[sim_below (&sim_plan, plan.num_legs)];
  struct sim_device *copy = copies[sim_below (&sim_plan, plan.num_copies)];

  switch (sim_below (&sim_plan, 30)) {
  case 0: case 1:
    blank_copy (copy);
    break;
  case 2: case 3:
    set_copy_back (copy);
    break;
  case 4: case 5:
    set_leg_back (leg);
    break;
  case 6: case 7: case 8:
    if (beside (leg) != NULL)
      copy = beside (leg);
    if (another_is_seen (copy) && set_leg_back (leg) && set_copy_back (copy))
      sim_count (SIM_OLD_BOTH);
    break;
  case 9: case 10:
    put_other_disk (leg);
  }
}

/* The user has put another disk in its place, and starts with it, or without. */
static void
show_other_disk (struct sim_device *dev)
{
  struct sim_record record;
  unsigned int i, others = 0;

  sim_record_read (&record, false, SIM_ALL_COPIES);
  for (i = 0; i < SIM_MAX_LEGS; i++)
    others += legs[i] != NULL && legs[i] != dev && legs[i]->present &&
      !legs[i]->edited && sim_in_sync (&record, legs[i]);
  dev->present = others > 0 && !phase.trouble && !phase.last &&
    sim_chance (&sim_plan, 30);
  phase.degraded = !dev->present;
}

static void
show_behind (void)
{
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL) {
      legs[i]->present = true;
      phase.trouble = phase.trouble || sim_is_faulty (legs[i]);
    }
  phase.degraded = false;
}

void
sim_show_replaced (void)
{
  unsigned int i;

  if (phase.last && phase.blank)
    phase.degraded = true;
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (!needs_others (legs[i]))
      continue;
    else if (legs[i]->behind)
      show_behind ();
    else
      show_other_disk (legs[i]);
}

unsigned long
sim_beside_old_copies (void)
{
  unsigned long set = 0;
  unsigned int i;

  for (i = 0; i < plan.num_copies; i++)
    if (copies[i]->set_back && beside (copies[i]) != NULL &&
        beside (copies[i])->leg >= 0)
      set |= 1UL << beside (copies[i])->leg;
  return set;
}

unsigned long
sim_other_disks (void)
{
  unsigned long set = 0;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (needs_others (legs[i]) && !legs[i]->behind)
      set |= 1UL << legs[i]->leg;
  return set;
}

/*----------------------------------------------------------------------
 * The same, while the server runs
 */

/* One that the mirror does not use: it was lost, and nobody can reach it just now. */
static void
edit_lost (void)
{
  struct sim_device *dev = NULL;
  struct sim_record record;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS && dev == NULL; i++)
    if (legs[i] != NULL && legs[i]->bdev.failed)
      dev = legs[i];
  if (dev != NULL)
    sim_sleep (LATE);
  if (!can_edit (dev) || !dev->bdev.failed || is_used (dev) ||
      mirror->log->dead || mirror->legs[dev->leg].state == DM_MIRROR_MISSING ||
      sim_date () < mirror->legs[dev->leg].left + LATE)
    return;
  sim_record_read (&record, true, SIM_ALL_COPIES);
  if (!sim_in_sync (&record, dev) && sim_date () > record.until[dev->leg])
    edit (dev, SIM_EDIT_LOST);
}

/*----------------------------------------------------------------------
 * The user
 */

static struct dm_mirror_leg
describe (struct sim_device *dev)
{
  return (struct dm_mirror_leg) {
    .region = {
      .bdev = &dev->bdev,
      .sector = dev->start,
      .count = dev->sectors - dev->start,
    },
    .name = dev->name,
  };
}

void
sim_add_leg (struct sim_device *dev)
{
  struct dm_mirror_leg leg = describe (dev);
  char *error = NULL;

  if (dm_mirror_add (mirror, &leg, &error) < 0)
    sim_trace ("not added: %s", error);
  g_free (error);
}

static void
add_new_leg (void)
{
  struct sim_device *dev;
  unsigned int i;
  uint32_t s;

  for (i = 0; i < SIM_MAX_LEGS && legs[i] != NULL; i++)
    ;
  if (i == SIM_MAX_LEGS)
    return;
  sim_trace ("user: add leg %u", i);
  dev = sim_device_new (SIM_LEG, i, plan.sectors, 0);
  for (s = 0; s < plan.sectors; s++)
    dev->stable[s] = dev->cached[s] = sim_below (&sim_plan, 20);
  dev->leg = dm_mirror_num_legs (mirror);
  legs[i] = dev;
  sim_add_leg (dev);
  if (dm_mirror_find_leg (mirror, dev->name) < 0)
    dev->leg = -1;              /* another may get the number */
}

static void
fail_leg (void)
{
  struct sim_device *dev = legs[sim_below (&sim_plan, plan.num_legs)];
  int r;

  if (dev->leg < 0)
    return;
  sim_trace ("user: fail leg %u", dev->number);
  sim_count_in_recovery (SIM_WISH_RECOVERY);
  dev->faulty = true;
  sim_update_losses ();
  dev->leaving = true;
  r = dm_mirror_fail (mirror, dev->leg);
  dev->leaving = false;
  sim_pause ();
  if (r == 0 && can_edit (dev) && sim_chance (&sim_plan, 40)) {
    sim_sleep (LATE);
    if (!sim_is_busy (dev))
      edit (dev, SIM_EDIT_WISHED);
  }
  if (sim_chance (&sim_plan, 60) && dev->present) {
    sim_trace ("user: add leg %u again", dev->number);
    sim_add_leg (dev);
  }
}

/* A leg or copy that was missing is found. */
static void
bring_back (void)
{
  unsigned int i;

  for (i = 0; i < sim_num_devices; i++)
    if (!sim_devices[i]->present && sim_devices[i]->kind == SIM_LEG) {
      sim_devices[i]->present = true;
      sim_devices[i]->faulty = true;
    }
}

static void
look (void)
{
  struct dm_mirror_status status;
  unsigned int i;

  dm_mirror_get_status (mirror, &status);
  for (i = 0; i < status.num_legs; i++)
    if (status.legs[i].out_of_sync > status.size + status.chunk)
      sim_fail ("leg %u lacks more than all", i);
  if (status.in_sync == 0)
    sim_fail ("W4: no leg is in sync");
  dm_mirror_status_clear (&status);
}

void *
sim_user (void *unused)
{
  unsigned int i, n = sim_pick (1, 3);

  for (i = 0; i < n; i++) {
    sim_pause ();
    switch (sim_below (&sim_plan, 7)) {
    case 0:
      fail_leg ();
      break;
    case 1:
      if (sim_chance (&sim_plan, 30))
        add_new_leg ();
      break;
    case 2:
      bring_back ();
      break;
    case 3:
      look ();
      break;
    case 4:
      edit_lost ();
      break;
    default:
      sim_sleep (sim_next (&sim_plan) % UINT64_C (10000000000));
    }
  }
  return NULL;
}
