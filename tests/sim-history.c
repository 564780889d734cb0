/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* One history, all of which follows from its seed: a mirror is made, and
 * then served in several phases.  Each phase starts with some of the legs
 * and of the log copies, in any order, and ends by a power cut, by the end of
 * the process alone, or properly.  In the last phase everything is there and
 * right; then the legs have to become equal.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "clock.h"
#include "mirror.h"
#include "sim-plan.h"

struct sim_rng sim_plan;
uint64_t sim_first_phase;
struct plan plan;
struct sim_device *legs[SIM_MAX_LEGS], *copies[SIM_MAX_COPIES];
struct dm_mirror *mirror;
struct phase phase;

static struct dm_log *mirror_log;
static uint64_t seed;
static uint64_t killed_at;       /* sim_now, when the last server was */
static unsigned long in_sync_before; /* ... by the log, before anything came late */

/*----------------------------------------------------------------------
 * What is going to happen
 */

/* Large volumes take much time, so they are rare. */
static void
plan_chunks (void)
{
  unsigned int kind = sim_below (&sim_plan, 200);

  plan.chunk = DM_LOG_MIN_CHUNK;
  plan.chunks = sim_pick (1, 8);
  if (kind < 16)
    plan.chunks = sim_pick (9, 64);
  else if (kind == 16) {
    plan.chunks = sim_pick (65, SIM_MAX_CHUNKS);
    sim_count (SIM_MANY_WORDS);
  }
  else if (kind < 30) {
    plan.chunk <<= sim_pick (1, 3);
    sim_count (SIM_LARGE_CHUNKS);
  }
  else if (kind == 30) {
    plan.chunk = 2 * MIRROR_PIECE;
    plan.chunks = sim_pick (1, 3);
    sim_count (SIM_MANY_PIECES);
  }
  g_assert (plan.chunks * plan.chunk <= SIM_MAX_SECTORS);
}

static void
plan_volume (void)
{
  static const unsigned char num_legs[] = {
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 1, 1, 4, 6,
  };

  plan.num_legs = num_legs[sim_below (&sim_plan, sizeof num_legs)];
  plan.num_copies = sim_pick (1, SIM_MAX_COPIES);
  plan.quorum = sim_chance (&sim_plan, 15) ?
    MIN (sim_pick (2, 3), plan.num_legs) : 1;
  plan.beside = sim_chance (&sim_plan, 40);
  plan.clock_jumps = sim_chance (&sim_plan, 10);
  plan_chunks ();
  plan.sectors = plan.chunks * plan.chunk;
  if (sim_chance (&sim_plan, 30))
    plan.sectors -= 8 * sim_pick (0, plan.chunk / 8 - 1);
  plan.block = sim_chance (&sim_plan, 15) ? 8 : 1;
  plan.init_sync = sim_chance (&sim_plan, 25);
}

static void
plan_course (void)
{
  static const unsigned char yields[] = { 100, 50, 20, 5 };
  static const unsigned char ios[] = { 20, 50, 80, 95 };
  static const unsigned char faults[] = { 0, 0, 1, 2, 3, 5 };

  plan.phases = sim_pick (1, 3);
  plan.clients = sim_pick (1, 4);
  plan.requests = sim_pick (1, 8);
  plan.faults = faults[sim_below (&sim_plan, sizeof faults)];
  plan.hot = sim_pick (0, plan.sectors - 1);
  plan.pause = sim_pick (0, 3);
  plan.resync_rate = sim_chance (&sim_plan, 30) ?
    (uint64_t) plan.sectors * DM_IO_SECTOR_SIZE / sim_pick (1, 20) : 0;
  sim_style.yield = yields[sim_below (&sim_plan, 4)];
  sim_style.io = ios[sim_below (&sim_plan, 4)];
  sim_style.jump = sim_chance (&sim_plan, 30) ? 5 : 0;
  sim_style.spurious = sim_chance (&sim_plan, 10) ? 20 : 0;
  sim_style.slow = sim_chance (&sim_plan, 15) ? 20 : 0;
}

static void
make_leg (unsigned int i)
{
  static const unsigned char write_back[] = { 0, 10, 90 };
  uint32_t start = sim_chance (&sim_plan, 30) ? 8 : 0;

  legs[i] = sim_device_new (SIM_LEG, i, plan.sectors + start, start);
  legs[i]->remote = sim_chance (&sim_plan, 40);
  if (legs[i]->remote && sim_chance (&sim_plan, 70))
    legs[i]->bdev.late = 5 * NSEC_PER_SEC;
  legs[i]->write_back = write_back[sim_below (&sim_plan, 3)];
  if (sim_chance (&sim_plan, 15))
    legs[i]->bdev.can_punch = CANNOT_PUNCH;
  if (plan.block > 1 && sim_chance (&sim_plan, 60))
    legs[i]->bdev.block_size = plan.block * DM_IO_SECTOR_SIZE;
}

/* What was in a sector of a new leg. */
static void
preset (struct sim_device *leg, uint32_t sector, sim_value value)
{
  leg->stable[leg->start + sector] = value;
  leg->cached[leg->start + sector] = value;
}

/* Some are older than what they could say of where others are. */
static void
make_copy (unsigned int i)
{
  sector_t sectors = sim_chance (&sim_plan, 30) ?
    dm_log_copy_sectors (plan.sectors, plan.chunk) :
    dm_log_new_copy_sectors (plan.sectors, plan.chunk);

  copies[i] = sim_device_new (SIM_COPY, i, sectors, 0);
  if (!plan.beside && sim_chance (&sim_plan, 25))
    copies[i]->bdev.late = 5 * NSEC_PER_SEC;
}

static void
make_devices (void)
{
  bool zero = sim_chance (&sim_plan, 60);
  unsigned int i;
  sim_value value;
  uint32_t s;

  for (i = 0; i < plan.num_legs; i++)
    make_leg (i);
  for (i = 0; i < plan.num_copies; i++)
    make_copy (i);
  sim_oracle_init (plan.sectors);
  if (zero && !plan.init_sync)
    return;
  for (s = 0; s < plan.sectors; s++) {
    value = zero ? 0 : 1 + s / 32;
    sim_oracle_set (s, value);
    for (i = 0; i < plan.num_legs; i++)
      preset (legs[i], s, plan.init_sync && i > 0 ?
              sim_below (&sim_plan, 20) : value);
  }
}

/*----------------------------------------------------------------------
 * Start
 */

static struct io_region
region_of (const struct sim_device *dev)
{
  return (struct io_region) {
    .bdev = (struct block_device *) &dev->bdev,
    .sector = dev->start,
    .count = dev->sectors - dev->start,
  };
}

static unsigned int
collect_copies (struct dm_log_copy *list)
{
  unsigned int i, j, n = 0;

  for (i = 0; i < plan.num_copies; i++) {
    if (!copies[i]->present)
      continue;
    j = sim_below (&sim_plan, n + 1);
    list[n++] = list[j];
    list[j] = (struct dm_log_copy) {
      .region = region_of (copies[i]), .name = copies[i]->name,
      .place = copies[i]->name,
      .leg = plan.beside && i < plan.num_legs ? legs[i]->name : NULL,
    };
  }
  return n;
}

static struct dm_log *
make_log (unsigned int n, const struct dm_log_copy *list)
{
  struct dm_log_leg known[SIM_MAX_LEGS] = { 0 };
  struct dm_log *log;
  char *error = NULL;
  unsigned int i;

  for (i = 0; i < plan.num_legs; i++) {
    known[i] = (struct dm_log_leg) {
      .id = legs[i]->name, .sectors = plan.sectors,
      .state = plan.init_sync && i > 0 ? DM_LOG_OUT_OF_SYNC : DM_LOG_IN_SYNC,
    };
    legs[i]->leg = i;
  }
  log = dm_log_new (n, list, plan.sectors, plan.chunk, plan.num_legs, known,
                    &error);
  if (log == NULL)
    sim_fail ("dm_log_new: %s", error);
  phase.created = true;
  return log;
}

static struct dm_log *
load_log (unsigned int n, const struct dm_log_copy *list)
{
  struct sim_record record;
  struct dm_log *log;
  char *error = NULL;
  bool hopeless;

  sim_record_read (&record, false, SIM_ALL_COPIES);
  in_sync_before = record.in_sync;
  hopeless = (record.current & phase.copies) == 0;
  phase.stale = hopeless;
  log = dm_log_load (n, list, &error);
  /* One that came before the copy could be used again seems to be of a second server. */
  if (log == NULL && sim_late_super)
    phase.over = true;
  else if (log == NULL && !hopeless && !phase.trouble)
    sim_fail ("the log is refused: %s", error == NULL ? "blank" : error);
  if (log == NULL)
    sim_trace ("no log: %s", error == NULL ? "blank" : error);
  /* Who says degraded does so on his own responsibility. */
  if (hopeless && (phase.degraded || phase.trouble))
    g_clear_pointer (&log, dm_log_free);
  g_free (error);
  return log;
}

/* The legs as the user names them: in any order, those that are missing
 * with no device, or not at all.
 */
static unsigned int
collect_legs (struct dm_mirror_leg *list)
{
  unsigned int i, j, n = 0;

  for (i = 0; i < SIM_MAX_LEGS; i++) {
    if (legs[i] == NULL || legs[i]->leg < 0)
      continue;
    if (!legs[i]->present && n > 0 && sim_chance (&sim_plan, 30))
      continue;
    j = sim_below (&sim_plan, n + 1);
    list[n++] = list[j];
    list[j] = (struct dm_mirror_leg) {
      .region = region_of (legs[i]), .name = legs[i]->name,
    };
    if (!legs[i]->present)
      list[j].region.bdev = NULL;
  }
  return n;
}

/* Which legs the log knows: adding one may have been cut short. */
static void
recognize_legs (void)
{
  unsigned int i, j, n = dm_log_num_legs (mirror_log);
  int leg;
  struct dm_log_leg known;

  for (i = 0; i < SIM_MAX_LEGS; i++) {
    if (legs[i] == NULL)
      continue;
    leg = -1;                   /* power may be cut before it is found */
    for (j = 0; j < n; j++) {
      dm_log_get_leg (mirror_log, j, &known);
      if (strcmp (known.id, legs[i]->name) == 0)
        leg = j;
    }
    legs[i]->leg = leg;
  }
}

static bool
reopen (void *unused, const char *name, struct io_region *region)
{
  unsigned int i;

  sim_yield ();
  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && strcmp (legs[i]->name, name) == 0) {
      if (!legs[i]->present || legs[i]->bdev.offline)
        return false;
      *region = region_of (legs[i]);
      return true;
    }
  return false;
}

static void
unopen (void *unused, struct io_region *region)
{
}

static unsigned long
legs_present (void)
{
  unsigned long set = 0;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 && legs[i]->present)
      set |= 1UL << legs[i]->leg;
  return set;
}

static bool
have_the_same (const struct sim_device *a, const struct sim_device *b)
{
  return memcmp (a->cached + a->start, b->cached + b->start,
                 plan.sectors * sizeof a->cached[0]) == 0;
}

static bool
is_in (const struct sim_device *leg, unsigned long set)
{
  return leg != NULL && leg->leg >= 0 && set & 1UL << leg->leg;
}

/* All that it would serve is what one leg that is in sync in truth has. */
static bool
are_right (unsigned long set)
{
  struct sim_record truth;
  unsigned int i, j;

  sim_record_read (&truth, false, SIM_ALL_COPIES);
  for (i = 0; i < SIM_MAX_LEGS; i++) {
    if (!is_in (legs[i], truth.in_sync & ~sim_edited ()))
      continue;
    for (j = 0; j < SIM_MAX_LEGS; j++)
      if (is_in (legs[j], set) && !have_the_same (legs[i], legs[j]))
        break;
    if (j == SIM_MAX_LEGS)
      return true;
  }
  return false;
}

/* Was it right to start, or not to?  SEEN is what the log copies say that are
 * there, not one of which need be up to date.  If a copy is missing that
 * was in use, it may still start if the legs prove that this does not
 * matter.  A write in flight when the clock is set on, or what a power cut leaves of the
 * times then, may seem to be somebody else's: then it need not start, and that is the
 * end.  So it is if somebody else has written to all legs in sync.
 */
static void
judge_start (const struct sim_record *seen, const char *error)
{
  unsigned long there = legs_present (), edited = sim_edited ();
  unsigned long doubtful = edited | sim_beside_old_copies ();
  bool started = mirror != NULL;
  const char *because = NULL;
  struct sim_record truth;

  if (phase.stale && (seen->in_sync & there & sim_as_known (seen)) != 0)
    because = NULL;             /* the others are not there, and nothing tells */
  else if ((seen->in_sync & there & ~edited) == 0)
    because = "no leg in sync is there that only the mirror has written";
  else if (seen->in_sync & ~there && !phase.degraded)
    because = "a leg in sync is missing, and nobody said degraded";
  else if (phase.stale && !are_right (seen->in_sync & there & ~edited))
    because = "all copies of the log that are there are outdated";
  else if (seen->in_sync & there & sim_other_disks ()) {
    because = "a leg in sync is another disk";
    if (!started)
      sim_count (SIM_OTHER_DISK_REFUSED);
  }
  if (started && because != NULL && !phase.trouble)
    sim_fail ("S2: it starts although %s", because);
  if (!started && because == NULL && !phase.trouble && !phase.stale &&
      !plan.clock_jumps && (seen->in_sync & there & ~doubtful) != 0 &&
      ((!seen->missing && !phase.blank) || phase.degraded ||
       (!phase.blank && phase.copies == (1UL << plan.num_copies) - 1)))
    sim_fail ("it does not start: %s", error);
  if (!started)
    sim_trace ("not started: %s", error);
  phase.over = phase.over || (!started && (plan.clock_jumps || phase.last));
  sim_record_read (&truth, false, SIM_ALL_COPIES);
  if (!started && (truth.in_sync & ~doubtful) == 0) {
    sim_count (SIM_EDIT_REFUSED);
    phase.over = true;
  }
}

/* Legs that the mirror believes.  With the user's word, if a copy of the log is
 * missing, that is only one.
 */
static unsigned long
believed_legs (void)
{
  struct dm_mirror_status status;
  unsigned long believed = 0;
  unsigned int i;

  dm_mirror_get_status (mirror, &status);
  for (i = 0; i < status.num_legs; i++)
    if (status.legs[i].state == DM_MIRROR_IN_SYNC)
      believed |= 1UL << i;
  dm_mirror_status_clear (&status);
  return believed;
}

/* Legs that lack something for a while after a crash, if others are in sync. */
static unsigned long
late_legs (void)
{
  unsigned long late = 0;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 && legs[i]->bdev.late > 0)
      late |= 1UL << legs[i]->leg;
  return late;
}

/* Legs that are, or seem to be, what they were when the mirror was quiet. */
static unsigned long
legs_behind (const struct sim_record *record)
{
  unsigned long behind = 0;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL && legs[i]->leg >= 0 &&
        (legs[i]->behind || legs[i]->mtime <= record->stamp[legs[i]->leg]))
      behind |= 1UL << legs[i]->leg;
  return behind;
}

static bool
start_mirror (void)
{
  struct dm_mirror_options options = {
    .policy = sim_chance (&sim_plan, 20) ? DM_MIRROR_READ_FIRST :
      DM_MIRROR_READ_BALANCE,
    .log = mirror_log,
    .degraded = phase.degraded,
    .quorum = plan.quorum,
    .resync_rate = phase.last ? 0 : plan.resync_rate,
    .reopen = reopen,
    .unopen = unopen,
  };
  struct dm_mirror_leg list[SIM_MAX_LEGS];
  struct sim_record record;
  unsigned long behind;
  unsigned int n;
  char *error = NULL;

  recognize_legs ();
  n = collect_legs (list);
  sim_record_read (&record, false, phase.copies);
  if (sim_late_super)
    sim_note_late (record.in_sync & ~in_sync_before, killed_at);
  /* Once it has started so, the other copies will contradict it. */
  phase.over = phase.stale;
  mirror = dm_mirror_new (n, list, &options, &error);
  if (mirror == NULL)
    phase.over = false;
  judge_start (&record, error);
  behind = legs_behind (&record) | sim_beside_old_copies ();
  phase.in_sync = record.in_sync & legs_present () & ~sim_edited ();
  if (mirror != NULL)
    sim_note_looked (legs_present ());
  if (mirror != NULL && record.missing && phase.degraded)
    phase.in_sync &= believed_legs ();
  else if (mirror != NULL)
    phase.in_sync &= believed_legs () | ~(late_legs () | behind);
  g_free (error);
  return mirror != NULL && !phase.over && dm_mirror_start (mirror) == 0;
}

/*----------------------------------------------------------------------
 * A phase
 */

static void
shut_down (void)
{
  uint64_t begun = sim_flush_begin ();
  struct dm_mirror *ending = mirror;

  sim_note_looked (0);
  mirror = NULL;
  dm_mirror_free (ending);
  sim_note_joined ();
  if (sim_must_succeed ())
    sim_flush_end (begun, SIM_ALL_CLIENTS);
  else
    sim_flush_failed (begun, SIM_ALL_CLIENTS);
}

static void
serve (void)
{
  struct dm_log_copy list[SIM_MAX_COPIES];
  unsigned int n = collect_copies (list);

  mirror_log = phase.created ? load_log (n, list) : make_log (n, list);
  if (mirror_log == NULL)
    return;
  if (start_mirror ()) {
    phase.started = true;
    sim_trace ("started");
    if (phase.last)
      sim_settle ();
    else
      sim_run_clients ();
    shut_down ();
    phase.ended = true;
  }
  else if (mirror != NULL)
    dm_mirror_free (g_steal_pointer (&mirror));
  dm_log_free (mirror_log);
}

/* When the power is cut; SIM_NEVER: not. */
static uint64_t
plan_cut (void)
{
  uint32_t usual = 200 + plan.clients * plan.requests * 40;

  switch (sim_below (&sim_plan, 10)) {
  case 0:
    return SIM_NEVER;
  case 1: case 2: case 3:
    return sim_pick (1, usual / 4);
  case 4: case 5:
    return sim_pick (1, usual * 3);
  default:
    return sim_pick (1, usual);
  }
}

static void
choose_present (void)
{
  struct sim_record record;
  unsigned int i;

  for (i = 0; i < SIM_MAX_LEGS; i++)
    if (legs[i] != NULL)
      legs[i]->present = !sim_chance (&sim_plan, 20);
  sim_record_read (&record, false, SIM_ALL_COPIES);
  for (i = 0; i < plan.num_copies; i++)
    copies[i]->present = !phase.created || !sim_chance (&sim_plan, 20);
  if (sim_chance (&sim_plan, 98))
    for (i = 0; i < plan.num_copies; i++)
      if (record.current & 1UL << i && sim_chance (&sim_plan, 70)) {
        copies[i]->present = true;
        break;
      }
  phase.degraded = sim_chance (&sim_plan, 60);
}

static void
begin_phase (bool last)
{
  unsigned int i;

  phase.last = last;
  phase.ended = phase.started = false;
  phase.degraded = phase.lossy = false;
  for (i = 0; i < sim_num_devices; i++) {
    if (last || sim_chance (&sim_plan, 80))
      sim_device_heal (sim_devices[i]);
    if (last)
      sim_device_mend (sim_devices[i]);
    sim_devices[i]->lost = sim_devices[i]->faulty = false;
    sim_devices[i]->leaving = sim_devices[i]->is_unflushed = false;
  }
  if (!last && phase.number > 0 && sim_chance (&sim_plan, 50))
    choose_present ();
  if (phase.number > 0 && phase.created)
    sim_replace_some ();
  phase.copies = 0;
  phase.trouble = false;
  for (i = 0; i < sim_num_devices; i++) {
    sim_devices[i]->faulty = sim_is_faulty (sim_devices[i]);
    phase.trouble |= sim_devices[i]->faulty && sim_devices[i]->present;
    if (sim_devices[i]->kind == SIM_COPY && sim_devices[i]->present &&
        !sim_devices[i]->faulty)
      phase.copies |= 1UL << sim_devices[i]->number;
  }
  if (!phase.created)
    for (i = 0; i < plan.num_copies; i++) {
      sim_device_heal (copies[i]);
      sim_device_blank (copies[i]);
      sim_late_forget (copies[i]);      /* it is another file */
    }
  sim_show_replaced ();
  sim_trace ("---- phase %u%s%s", phase.number, last ? " (last)" : "",
             phase.degraded ? " degraded" : "");
}

/* Has no leg lost anything, and none is about to?  One that has while it was
 * recovered may be in sync by now.
 */
static bool
all_is_kept (void)
{
  struct sim_device *dev;
  unsigned int i;
  uint32_t j;

  for (i = 0; i < sim_num_devices; i++) {
    dev = sim_devices[i];
    if (dev->flush_failed || phase.lossy)
      return false;
    for (j = 0; j < dev->num_dirty; j++)
      if (dev->flags[dev->dirty[j]] & SIM_FORGOTTEN)
        return false;
  }
  return true;
}

/* The power is cut, or only the process ends. */
static void
cut (void)
{
  bool power = sim_chance (&sim_plan, 75), kept = !power && all_is_kept ();
  unsigned int i;

  sim_trace ("**** %s at step %u", power ? "power cut" : "killed",
             (unsigned) sim_steps);
  sim_count_in_recovery (SIM_CUT_RECOVERY);
  killed_at = sim_now;
  sim_io_cut (power);
  if (power)
    sim_late_forget (NULL);
  for (i = 0; i < sim_num_devices; i++)
    if (power || sim_chance (&sim_plan, 10)) {
      sim_lose_cache (sim_devices[i]);
      kept = false;
    }
  sim_note_looked (0);
  if (phase.created && !phase.over)
    sim_check_cut ();
  sim_oracle_cut (power, kept);
}

/* It has ended in an orderly way; perhaps power goes too. */
static void
stopped (void)
{
  bool power = sim_chance (&sim_plan, 50), kept = !power && all_is_kept ();
  unsigned int i;

  sim_trace ("---- ended after %u steps", (unsigned) sim_steps);
  for (i = 0; power && i < sim_num_devices; i++)
    sim_lose_cache (sim_devices[i]);
  if (power)
    sim_late_forget (NULL);
  if (phase.created && !phase.over)
    sim_check_cut ();
  if (!phase.ended || !sim_must_succeed ())
    sim_oracle_cut (power, kept);
}

static void
run_phase (bool last, uint64_t cut_at)
{
  begin_phase (last);
  sim_late_begin ();
  mirror = NULL;
  if (sim_run (serve, cut_at))
    stopped ();
  else
    cut ();
  if (phase.number == 0)
    sim_first_phase = sim_steps;
  phase.number++;
  sim_now += NSEC_PER_SEC * sim_pick (1, 100);
  if (phase.created && !last) {
    sim_edit_unserved (phase.ended && sim_must_succeed ());
    sim_save_some ();
  }
  if (plan.clock_jumps && sim_chance (&sim_plan, 50))
    sim_set_clock ();
}

/*----------------------------------------------------------------------
 * The end
 */

static void
check_equal (void)
{
  uint64_t begun = sim_read_begin ();
  struct sim_device *leg;
  unsigned int i;
  uint32_t s;

  for (i = 0; i < SIM_MAX_LEGS; i++) {
    leg = legs[i];
    if (leg == NULL || leg->leg < 0)
      continue;
    for (s = 0; s < plan.sectors; s++) {
      if (leg->stable[leg->start + s] != legs[0]->stable[legs[0]->start + s])
        sim_fail ("in the end sector %u is %u on leg 0 and %u on leg %u", s,
                  legs[0]->stable[legs[0]->start + s],
                  leg->stable[leg->start + s], i);
      sim_read_value (begun, s, leg->stable[leg->start + s], false);
    }
  }
  sim_read_done (begun);
}

static void
check_log (void)
{
  struct dm_log_copy list[SIM_MAX_COPIES];
  struct dm_log_leg known;
  char *error = NULL;
  unsigned int i;

  mirror_log = dm_log_load (collect_copies (list), list, &error);
  if (mirror_log == NULL && sim_late_super)
    return;
  if (mirror_log == NULL)
    sim_fail ("in the end the log is refused: %s", error);
  /* One that came late may say that a copy is out of use that went on. */
  if (dm_log_is_dirty (mirror_log) && !sim_late_super)
    sim_fail ("in the end chunks are dirty");
  for (i = 0; i < dm_log_num_legs (mirror_log); i++) {
    dm_log_get_leg (mirror_log, i, &known);
    if (known.state != DM_LOG_IN_SYNC || dm_log_lacking (mirror_log, i) > 0)
      sim_fail ("in the end leg %u is not in sync in the log", i);
  }
  dm_log_free (mirror_log);
}

void
sim_history (const struct sim_options *options)
{
  uint64_t cut_at;

  seed = options->seed;
  sim_plan.state = seed * 3;
  sim_schedule.state = seed * 3 + UINT64_C (0x100000001);
  sim_media.state = seed * 3 + UINT64_C (0x200000002);
  sim_now = NSEC_PER_SEC;
  sim_clock_error = 0;
  memset (&phase, 0, sizeof phase);
  memset (legs, 0, sizeof legs);
  sim_memory_reset ();
  sim_record_init ();
  sim_tick = 0;
  sim_late_forget (NULL);
  sim_late_super = false;
  sim_news = 0;
  plan_volume ();
  plan_course ();
  make_devices ();
  while (phase.number < plan.phases && !phase.over) {
    cut_at = plan_cut ();
    if (options->cut_at != 0)
      cut_at = phase.number == 0 ? options->cut_at : SIM_NEVER;
    run_phase (false, cut_at);
  }
  if (!phase.over)
    run_phase (true, SIM_NEVER);
  if (!phase.over) {
    check_equal ();
    sim_run (check_log, SIM_NEVER);
  }
  sim_devices_clear ();
}
