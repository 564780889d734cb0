/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The start of a mirror with a log: the legs that are given are compared
 * with those that the log knows (S2).  Nothing is written before all is
 * known to be right.
 *
 * A leg can be read if the log says that it is in sync, it is there, and it
 * has not changed since (R16).  There has to be one.  One that the log holds
 * for in sync and that is not there may have been the only one to get the
 * last writes, so without it the user has to say that he wants that.
 *
 * The same holds for a copy of the log that was in use and is not there, unless
 * all legs, in whatever state, are files that show that nobody has written them
 * since: one that was out of sync may have taken over meanwhile.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include <glib.h>

#include "mirror.h"
#include "samples.h"

/* What is found out about the legs. */
struct findings {
  unsigned long given;          /* on the command line, so to say */
  unsigned long there;          /* open */
  unsigned long in_sync;        /* says the log */
  unsigned long lost;           /* changed while they were not served */
  unsigned long set_back;       /* of these, by their copies of the log */
  unsigned long unchanged;      /* surely not */
  unsigned long stamped;        /* that would show */
  unsigned long distrusted;     /* perhaps served without the copies there are */
  unsigned long in_doubt;       /* may still get writes of the last server (S5) */
  uint64_t late;                /* for so long, nsec */
  unsigned long behind;         /* less was written there before the crash */
  struct bdev_stamp *stamps;    /* of each leg that is there */
};

/* After a crash the times of legs differ by the writes in flight, and after a power cut
 * by what file systems had yet to write of them.  A leg that is older by more than this
 * lacks something.
 */
#define BEHIND_NSEC (60 * NSEC_PER_SEC)


static void
fail (char **error, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 2, 3)));

static void
fail (char **error, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  *error = g_strdup_vprintf (fmt, args);
  va_end (args);
}

/*----------------------------------------------------------------------
 * One leg
 */

static unsigned long
all_legs (const struct dm_mirror *m)
{
  return (2UL << (m->num_legs - 1)) - 1;
}

/* The names of the legs in a set. */
static char *
names_of (const struct dm_mirror *m, unsigned long legs)
{
  GString *names = g_string_new (NULL);

  FOR_EACH_LEG (i, legs)
    g_string_append_printf (names, "%s%s", names->len > 0 ? ", " : "",
                            m->legs[i].name);
  return g_string_free (names, FALSE);
}

static const char *
id_of (const struct dm_mirror_leg *leg)
{
  return leg->id != NULL ? leg->id : leg->name;
}

/* For samples_compare. */
struct leg_in_log {
  struct dm_log *log;
  unsigned int leg;
};

static bool
is_quiet (void *context, sector_t sector, sector_t count)
{
  const struct leg_in_log *l = context;

  return dm_log_is_quiet (l->log, l->leg, sector, count);
}

int
mirror_compare (struct dm_mirror *m, unsigned int source, unsigned int leg,
                sector_t *at)
{
  struct leg_in_log l = { m->log, leg };
  const struct samples_filter filter = { is_quiet, &l };

  return samples_compare (&m->legs[source].region, &m->legs[leg].region,
                          m->sectors, &filter, at);
}

static bool
check_geometry (struct dm_mirror *m, unsigned int leg,
                const struct io_region *region, sector_t before,
                char **error)
{
  const char *name = m->legs[leg].name;
  unsigned int block = dm_bdev_block_size (region->bdev);

  if (region->count < m->sectors)
    fail (error, "region '%s' has %" PRIu64 " bytes, less than the volume, "
          "which has %" PRIu64 "; give it its size back", name,
          region->count * DM_IO_SECTOR_SIZE,
          m->sectors * DM_IO_SECTOR_SIZE);
  else if (region->count != before)
    fail (error, "region '%s' had %" PRIu64 " bytes and has %" PRIu64 " now; "
          "the volume keeps its size, so add ,count=%" PRIu64 " to the "
          "region to use only what it had", name,
          before * DM_IO_SECTOR_SIZE, region->count * DM_IO_SECTOR_SIZE,
          before);
  else if (region->bdev->read_only)
    fail (error, "region '%s' is read-only, so it could not be kept in sync; "
          "give write access to it", name);
  else if (block > m->block_size ||
           m->sectors % (block / DM_IO_SECTOR_SIZE) != 0)
    fail (error, "region '%s' has a block size of %u bytes, which does not "
          "fit the volume; use direct=off, or a server with smaller blocks",
          name, block);
  else
    return true;
  return false;
}

/* Is a file as it was when it was last served?  If nothing is dirty it was not
 * written since the stamp; else only an interval is known in which it was, and a
 * time in that is no proof.
 */
static enum mirror_change
compare (struct dm_mirror *m, const struct dm_log_leg *known,
         const struct bdev_stamp *now)
{
  const struct bdev_stamp *then = &known->stamp;
  bool dirty = dm_log_is_dirty (m->log);

  if (!then->valid || !now->valid)
    return MIRROR_NOT_KNOWN;
  if (now->size != then->size)
    return MIRROR_CHANGED;
  if (now->mtime == then->mtime)
    return dirty ? MIRROR_NOT_KNOWN : MIRROR_UNCHANGED;
  if (known->state == DM_LOG_IN_SYNC && !dirty)
    return MIRROR_CHANGED;
  return now->mtime > then->mtime && now->mtime <= known->until ?
    MIRROR_NOT_KNOWN : MIRROR_CHANGED;
}

bool
mirror_check_leg (struct dm_mirror *m, unsigned int leg,
                  const struct io_region *region,
                  enum mirror_change *change, struct bdev_stamp *stamp,
                  char **error)
{
  struct dm_log_leg known;
  int r;

  dm_log_get_leg (m->log, leg, &known);
  if (!check_geometry (m, leg, region, known.sectors, error))
    return false;
  r = bdev_stamp (region->bdev, stamp);
  if (r < 0) {
    fail (error, "region '%s' cannot be flushed: %s", m->legs[leg].name,
          g_strerror (-r));
    return false;
  }
  *change = compare (m, &known, stamp);
  return true;
}

/*----------------------------------------------------------------------
 * All legs
 */

static void
take_known (struct dm_mirror *m, struct findings *f)
{
  struct dm_log_leg known;
  unsigned int i;

  m->num_legs = dm_log_num_legs (m->log);
  for (i = 0; i < m->num_legs; i++) {
    dm_log_get_leg (m->log, i, &known);
    m->legs[i].id = g_strdup (known.id);
    m->legs[i].name = g_strdup (known.id);
    m->legs[i].by_user = known.state == DM_LOG_FAILED;
    m->legs[i].was_written = known.until != 0;
    m->legs[i].delay = MIRROR_FIRST_DELAY;
    if (known.state == DM_LOG_IN_SYNC)
      f->in_sync |= 1UL << i;
  }
}

static bool
take_given (struct dm_mirror *m, const struct dm_mirror_leg *leg,
            struct findings *f, char **error)
{
  int i = dm_mirror_find_leg (m, id_of (leg));
  g_autofree char *all = NULL;

  if (i < 0) {
    all = names_of (m, all_legs (m));
    fail (error, "region '%s' %sis not a leg of this mirror, whose legs are "
          "%s; %s", leg->name,
          leg->region.bdev == NULL ? "cannot be opened, and " : "", all,
          leg->region.bdev == NULL ? "correct its name, or leave it out" :
          "to add it or to replace one, start without it and use 'dmioctl "
          "add', which copies the volume to it");
    return false;
  }
  if (f->given & 1UL << i) {
    fail (error, "region '%s' is given twice", leg->name);
    return false;
  }
  f->given |= 1UL << i;
  g_free (m->legs[i].name);
  m->legs[i].name = g_strdup (leg->name);
  m->legs[i].region = leg->region;
  mirror_give (m, i);
  if (leg->region.bdev != NULL)
    f->there |= 1UL << i;
  if (leg->write_mostly)
    m->write_mostly |= 1UL << i;
  return true;
}

/* A leg that is there and cannot be used is an error; so the user sees it
 * before anything is recorded.
 */
static bool
check_legs (struct dm_mirror *m, struct findings *f, char **error)
{
  enum mirror_change change;
  struct dm_log_leg known;

  FOR_EACH_LEG (i, f->there) {
    dm_log_get_leg (m->log, i, &known);
    if (known.stamp.valid)
      f->stamped |= 1UL << i;
    if (!mirror_check_leg (m, i, &m->legs[i].region, &change, &f->stamps[i],
                           error))
      return false;
    if (dm_log_is_set_back (m->log, i, m->legs[i].region.bdev))
      f->set_back |= 1UL << i;
    if (change == MIRROR_CHANGED || f->set_back & 1UL << i)
      f->lost |= 1UL << i;
    else if (change == MIRROR_UNCHANGED)
      f->unchanged |= 1UL << i;
  }
  return true;
}

/* The user says that the copies of the log which are there know best.  That
 * chooses a source, and vouches for nothing else: what others may have written
 * since must not be taken for what this leg has.
 */
static void
trust_one (struct dm_mirror *m, struct findings *f)
{
  unsigned long source = 1UL << mirror_given_first (m, m->in_sync);

  f->distrusted = all_legs (m) & ~source;
  if (f->stamped & source)
    f->distrusted &= ~f->unchanged;
  else                          /* they may be what it was, but what is it now? */
    f->lost |= f->distrusted;
  m->in_sync = source | (m->in_sync & ~f->distrusted);
}

/* Decide which legs are in sync. */
static bool
choose_legs (struct dm_mirror *m, struct findings *f, char **error)
{
  unsigned long usable = f->in_sync & f->there & ~f->lost;
  unsigned long absent = f->in_sync & ~f->there;
  g_autofree char *names = NULL, *away = NULL;
  g_autofree char *copies = dm_log_missing_copies (m->log);

  if (usable == 0 && f->in_sync & f->lost) {
    names = names_of (m, f->in_sync & f->lost);
    fail (error, "%s: changed while the mirror was not served, and no other "
          "region is in sync; if the contents are what you want, remove the "
          "copies of the log and start with init=sync and the right region "
          "first", names);
    return false;
  }
  if (usable == 0) {
    names = names_of (m, f->in_sync);
    away = names_of (m, f->there);
    fail (error, "no region that is in sync is there: that would be %s, but "
          "there is only: %s; give one that is in sync",
          names, *away != '\0' ? away : "none");
    return false;
  }
  if (absent != 0 && !m->options.degraded) {
    names = names_of (m, absent);
    fail (error, "%s: in sync, says the log, but missing; bring it back, or "
          "say degraded=yes to start without it (it is recovered when it is "
          "back)", names);
    return false;
  }
  m->in_sync = usable;
  if (copies == NULL || (all_legs (m) & ~f->unchanged) == 0)
    return true;
  if (!m->options.degraded) {
    fail (error, "a copy of the log that was in use is missing or not valid: "
          "%s; if the others had failed it would know of writes that they do "
          "not, and the regions do not show that this is not so; bring it "
          "back, or say degraded=yes to rely on the others (it is written "
          "again)", copies);
    return false;
  }
  trust_one (m, f);
  return true;
}

/* Are legs alike that the log holds for in sync?  That they are has to be looked at
 * unless their times show that nobody wrote any: one may have been restored from a
 * backup, or be another disk in its place.
 */
static bool
legs_are_alike (struct dm_mirror *m, const struct findings *f, char **error)
{
  unsigned int source = mirror_given_first (m, m->in_sync);
  unsigned long others = m->in_sync & ~(1UL << source);
  sector_t at;
  int r;

  if (f->unchanged & 1UL << source)
    others &= ~f->unchanged;
  FOR_EACH_LEG (i, others) {
    r = mirror_compare (m, source, i, &at);
    if (r == -EIO)
      r = 0;                    /* a bad sector is repaired when it is read */
    if (r < 0)
      fail (error, "regions '%s' and '%s' cannot be compared: %s; make both "
            "reachable, or start without one and with degraded=yes",
            m->legs[source].name, m->legs[i].name, g_strerror (-r));
    else if (r > 0)
      fail (error, "regions '%s' and '%s' are in sync, says the log, but "
            "differ in the block at offset %" PRIu64 ", for one: one of them "
            "is an old copy, or something else in its place; start without "
            "that one and with degraded=yes, and then use 'dmioctl add "
            "--full', which copies the volume to it", m->legs[source].name,
            m->legs[i].name, at * DM_IO_SECTOR_SIZE);
    if (r != 0)
      return false;
  }
  return true;
}

/* After a crash a file may have been set back to what it was when the mirror was quiet
 * last, with its times.  Or the last write has reached only others: then nothing but
 * that is copied to it.  It is no source either way.
 */
static void
choose_behind (struct dm_mirror *m, struct findings *f)
{
  unsigned long stamped = 0, written = 0;
  uint64_t newest = 0;
  struct dm_log_leg known;

  if (!dm_log_is_dirty (m->log))
    return;
  FOR_EACH_LEG (i, m->in_sync & f->stamped) {
    dm_log_get_leg (m->log, i, &known);
    if (!f->stamps[i].valid)
      continue;
    stamped |= 1UL << i;
    if (f->stamps[i].mtime == known.stamp.mtime)
      continue;
    written |= 1UL << i;
    newest = MAX (newest, f->stamps[i].mtime);
  }
  FOR_EACH_LEG (i, stamped)
    if (f->stamps[i].mtime + (written & 1UL << i ? BEHIND_NSEC : 0) < newest)
      f->behind |= 1UL << i;
  m->in_sync &= ~f->behind;
}

/* Could the last server have sent something to this leg when it ended? */
static bool
may_be_late (struct dm_mirror *m, unsigned int leg,
             const struct block_device *bdev)
{
  return bdev->late > 0 && m->legs[leg].was_written;
}

/* After a crash writes of the last server may still be under way in servers of legs.
 * If enough other legs are in sync these lack what is dirty until that is over;
 * else all legs in sync are in doubt, and the dirty chunks have to wait.  What was just
 * being copied to a leg that lacks something is not dirty, and nobody knows if it was.
 */
static void
choose_doubtful (struct dm_mirror *m, struct findings *f)
{
  unsigned long others;

  FOR_EACH_LEG (i, f->there)
    if (may_be_late (m, i, m->legs[i].region.bdev)) {
      f->late = MAX (f->late, m->legs[i].region.bdev->late);
      f->in_doubt |= 1UL << i;
    }
  if (!dm_log_is_dirty (m->log)) {
    f->in_doubt &= ~m->in_sync;
    return;
  }
  others = m->in_sync & ~f->in_doubt;
  if (COUNT (others) >= m->quorum)
    m->in_sync = others;
  else if ((m->in_sync & f->in_doubt) != 0)
    f->in_doubt |= m->in_sync;
}

static const char *
why_out_of_sync (const struct findings *f, unsigned int leg)
{
  if (f->distrusted & 1UL << leg)
    return "it may have been written without the copies of the log that are "
      "there";
  if (f->set_back & 1UL << leg)
    return "it was set back to an older state, as its copy of the log was";
  if (f->lost & 1UL << leg)
    return "it changed while it was not served";
  if (f->behind & 1UL << leg)
    return "it was written last before others were, so it may be an old copy";
  if (f->in_sync & 1UL << leg)
    return "writes from before the crash may still reach it";
  return "it has missed writes";
}

static const char *
why_missing (const struct findings *f, unsigned int leg)
{
  return f->given & 1UL << leg ? "it cannot be opened" : "it was not given";
}

static void
set_states (struct dm_mirror *m, const struct findings *f)
{
  unsigned int i;

  for (i = 0; i < m->num_legs; i++) {
    struct leg *l = &m->legs[i];

    failure_log_set_name (m->failures, i, l->name);
    if (m->in_sync & 1UL << i)
      l->state = DM_MIRROR_IN_SYNC;
    else if (!(f->there & 1UL << i))
      mirror_set_state (m, i, DM_MIRROR_MISSING, why_missing (f, i));
    else if (l->by_user)
      mirror_set_state (m, i, DM_MIRROR_FAILED, f->lost & 1UL << i ?
                        "failed by the user, and it changed since" :
                        "failed by the user");
    else
      mirror_set_state (m, i, DM_MIRROR_OUT_OF_SYNC, why_out_of_sync (f, i));
  }
}

static void
report_legs (struct dm_mirror *m)
{
  unsigned int i;

  for (i = 0; i < m->num_legs; i++)
    if (m->legs[i].state != DM_MIRROR_IN_SYNC)
      mirror_report (m, i, "is %s (%s)",
                     dm_mirror_state_name (m->legs[i].state),
                     m->legs[i].reason);
}

bool
mirror_assemble (struct dm_mirror *m, unsigned int num_legs,
                 const struct dm_mirror_leg *legs, char **error)
{
  g_autofree struct bdev_stamp *stamps =
    g_new0 (struct bdev_stamp, DM_IO_MAX_REGIONS);
  struct findings f = { .stamps = stamps };
  uint64_t now = clock_date ();
  unsigned int i;
  int r;

  m->started = clock_now ();
  m->sectors = dm_log_volume (m->log);
  take_known (m, &f);
  for (i = 0; i < num_legs; i++)
    if (!take_given (m, &legs[i], &f, error))
      return false;
  if (!check_legs (m, &f, error) || !choose_legs (m, &f, error) ||
      !legs_are_alike (m, &f, error))
    return false;
  choose_behind (m, &f);
  choose_doubtful (m, &f);
  dm_log_distrust (m->log, f.distrusted & ~f.there);
  r = dm_log_start (m->log, ~m->in_sync,
                    f.lost | (f.distrusted & f.there));
  if (r < 0) {
    fail (error, "the log cannot be written: %s", g_strerror (-r));
    return false;
  }
  set_states (m, &f);
  mirror_begin_doubt (m, f.in_doubt, m->started + f.late);
  for (i = 0; i < m->num_legs; i++)
    m->legs[i].left = now;      /* it has been looked at since */
  if (!dm_log_is_dirty (m->log))
    mirror_stamp (m);
  m->unreconciled = dm_log_next_unreconciled (m->log, 0, mirror_chunks (m)) <
    mirror_chunks (m);
  report_legs (m);
  return true;
}

/*----------------------------------------------------------------------
 * Later
 */

/* A region that a leg may get which has none, and what it was like when it was
 * looked at.
 */
struct candidate {
  const struct io_region *region;
  enum dm_mirror_add add;
  enum mirror_change change;
  uint64_t date;
};

/* Called with state_lock: the user gives up what copies of the log know that belong to a
 * leg.  They may speak of other legs that are not used, too.
 */
static int
give_up (struct dm_mirror *m, unsigned int leg,
         const struct block_device *bdev)
{
  g_autofree char *copy = NULL, *same = NULL;
  int r = dm_log_split_brain (m->log, leg, bdev, false, &copy);

  if (r < 0 || copy == NULL)
    return r;
  FOR_EACH_LEG (i, all_legs (m) & ~mirror_used (m))
    if (r == 0)
      r = dm_log_lose (m->log, i);
  if (r == 0)
    r = dm_log_split_brain (m->log, leg, bdev, true, &same);
  if (r == 0)
    g_warning ("region %u (%s): log copy %s is given up, as the user wishes",
               leg, m->legs[leg].name, copy);
  return r;
}

/* Called with state_lock, for a leg that is not used: what is to be recorded of it. */
static int
record_return (struct dm_mirror *m, unsigned int leg,
               const struct candidate *c, const struct block_device *bdev)
{
  int r = 0;

  if (c->change == MIRROR_CHANGED || c->add >= DM_MIRROR_ADD_FULL)
    r = dm_log_lose (m->log, leg);
  if (r == 0 && m->legs[leg].by_user)
    r = dm_log_set_failed (m->log, leg, false);
  if (r == 0 && c->add == DM_MIRROR_ADD_OVERWRITE)
    r = give_up (m, leg, bdev);
  return r;
}

/* Called with state_lock, for a leg that is not used.  Let it be recovered. */
static int
readmit (struct dm_mirror *m, unsigned int leg, const struct candidate *c,
         char **error)
{
  struct leg *l = &m->legs[leg];
  const struct block_device *bdev =
    l->region.bdev != NULL ? l->region.bdev : c->region->bdev;
  int r;

  if (bdev == NULL) {
    fail (error, "region '%s' is missing: it has to be opened", l->name);
    return -1;
  }
  r = record_return (m, leg, c, bdev);
  if (r == -EAGAIN)
    fail (error, "region '%s': a copy of the log that may have been used with it "
          "cannot be read now; try again", l->name);
  else if (r < 0)
    fail (error, "region '%s': the log cannot be written: %s", l->name,
          g_strerror (-r));
  if (r < 0)
    return -1;
  if (l->region.bdev == NULL) {
    l->region = *c->region;
    __atomic_store_n (&l->left, c->date, __ATOMIC_RELAXED);
    if (may_be_late (m, leg, l->region.bdev) &&
        clock_now () < m->started + l->region.bdev->late)
      mirror_begin_doubt (m, 1UL << leg,
                          m->started + l->region.bdev->late);
  }
  l->by_user = false;
  if (!l->given)
    mirror_give (m, leg);
  l->retry_at = 0;
  l->delay = MIRROR_FIRST_DELAY;
  if (l->state == DM_MIRROR_MISSING)
    mirror_set_state (m, leg, DM_MIRROR_OUT_OF_SYNC, "it was missing");
  pthread_cond_broadcast (&m->state_changed);
  return leg;
}

/* Called without state_lock, as it may take long, for a leg that is known. */
static bool
look_at (struct dm_mirror *m, unsigned int leg, const struct io_region *region,
         struct candidate *c, char **error)
{
  struct bdev_stamp stamp;
  bool wanted;

  *c = (struct candidate) { .region = region, .date = clock_date () };
  pthread_mutex_lock (&m->state_lock);
  wanted = m->legs[leg].region.bdev == NULL && region->bdev != NULL;
  pthread_mutex_unlock (&m->state_lock);
  return !wanted ||
    mirror_check_leg (m, leg, region, &c->change, &stamp, error);
}

static int
open_copies (struct dm_mirror *m, unsigned int leg, char **error)
{
  return m->options.open_copies == NULL ? 0 :
    m->options.open_copies (m->options.context, m->legs[leg].id, error);
}

enum mirror_return
mirror_may_return (struct dm_mirror *m, unsigned int leg,
                   const struct block_device *bdev, char **error)
{
  const struct leg *l = &m->legs[leg];
  g_autofree char *copy = NULL;
  int opened = open_copies (m, leg, error), r;

  if (opened < 0 && opened != -EAGAIN)
    return MIRROR_RETURN_LATER;
  r = dm_log_split_brain (m->log, leg, bdev, false, &copy);
  if (copy == NULL)
    return r == 0 && opened == 0 ? MIRROR_RETURN : MIRROR_RETURN_LATER;
  fail (error, "region %u (%s): log copy %s has seen changes that this mirror "
        "has not (split brain), so this region is not used: give up what it "
        "has with 'dmioctl add --overwrite', or end this server and start with "
        "that region and that copy alone", leg, l->name, copy);
  return MIRROR_SPLIT_BRAIN;
}

bool
mirror_readmit (struct dm_mirror *m, unsigned int leg,
                const struct io_region *region, char **error)
{
  struct candidate c;
  int r;

  if (!look_at (m, leg, region, &c, error))
    return false;
  pthread_mutex_lock (&m->state_lock);
  r = readmit (m, leg, &c, error);
  pthread_mutex_unlock (&m->state_lock);
  return r >= 0;
}

/* May the user use this leg, which the log knows, again?  */
static bool
check_return (struct dm_mirror *m, unsigned int leg,
              const struct dm_mirror_leg *given, struct candidate *c,
              char **error)
{
  const struct block_device *bdev;

  if (!look_at (m, leg, &given->region, c, error))
    return false;
  c->add = given->add;
  pthread_mutex_lock (&m->state_lock);
  bdev = m->legs[leg].region.bdev;
  pthread_mutex_unlock (&m->state_lock);
  if (bdev == NULL)
    bdev = given->region.bdev;
  /* What cannot be looked at now the keeper waits for. */
  if (bdev != NULL && c->add != DM_MIRROR_ADD_OVERWRITE)
    mirror_may_return (m, leg, bdev, error);
  else
    open_copies (m, leg, error);
  return *error == NULL;
}

/* Called with state_lock. */
static int
add_new (struct dm_mirror *m, const struct dm_mirror_leg *leg, char **error)
{
  struct leg *l = &m->legs[m->num_legs];
  int r;

  if (m->num_legs == DM_IO_MAX_REGIONS) {
    fail (error, "region '%s': there can be at most %zu legs", leg->name,
          DM_IO_MAX_REGIONS);
    return -1;
  }
  l->name = g_strdup (leg->name);
  if (!check_geometry (m, m->num_legs, &leg->region, leg->region.count,
                       error)) {
    g_clear_pointer (&l->name, g_free);
    return -1;
  }
  r = dm_log_add_leg (m->log, id_of (leg), leg->region.count);
  if (r < 0) {
    g_clear_pointer (&l->name, g_free);
    fail (error, "region '%s': the log cannot be written: %s", leg->name,
          g_strerror (-r));
    return -1;
  }
  g_assert ((unsigned int) r == m->num_legs);
  l->id = g_strdup (id_of (leg));
  l->region = leg->region;
  l->left = clock_date ();
  mirror_give (m, r);
  l->delay = MIRROR_FIRST_DELAY;
  failure_log_set_name (m->failures, r, leg->name);
  if (leg->write_mostly)
    __atomic_or_fetch (&m->write_mostly, 1UL << r, __ATOMIC_RELAXED);
  __atomic_store_n (&m->num_legs, r + 1, __ATOMIC_RELEASE);
  mirror_set_state (m, r, DM_MIRROR_OUT_OF_SYNC, "it is new");
  pthread_cond_broadcast (&m->state_changed);
  return r;
}

int
dm_mirror_add (struct dm_mirror *m, const struct dm_mirror_leg *leg,
               char **error)
{
  enum dm_mirror_state state;
  struct candidate c = { 0 };
  int i = dm_mirror_find_leg (m, id_of (leg)), r;

  if (i >= 0 && !check_return (m, i, leg, &c, error))
    return -1;
  pthread_mutex_lock (&m->state_lock);
  state = i < 0 ? DM_MIRROR_OUT_OF_SYNC : m->legs[i].state;
  if (i < 0)
    r = add_new (m, leg, error);
  else if (state == DM_MIRROR_FAILED || state == DM_MIRROR_MISSING)
    r = readmit (m, i, &c, error);
  else {
    fail (error, "region '%s' is a leg already, and %s", leg->name,
          dm_mirror_state_name (state));
    r = -1;
  }
  pthread_mutex_unlock (&m->state_lock);
  return r;
}
