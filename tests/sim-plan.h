/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What a history is made of: shared by sim-history.c, which leads
 * through it, and by sim-clients.c and sim-faults.c, which have those
 * who act in it.
 */

#ifndef DMIO_SIM_PLAN_H
#define DMIO_SIM_PLAN_H

#include "sim.h"

struct plan {
  unsigned int num_legs, num_copies, quorum;
  uint32_t chunk, chunks, sectors; /* chunk and volume: sectors */
  uint32_t block;               /* requests are multiples of so many sectors */
  bool init_sync;
  bool beside;                  /* copies are beside legs, and fail with them */
  bool clock_jumps;
  uint64_t resync_rate;
  unsigned int phases, clients, requests, faults;
  uint32_t hot;                 /* where most requests go */
  unsigned int pause;           /* between requests: 0 none, 3 long */
};

struct phase {
  unsigned int number;
  bool created;                 /* there is a log */
  bool last, started, ended;
  bool degraded;
  bool trouble;                 /* a device is faulty at the start */
  unsigned long copies;         /* that can be seen */
  bool stale;                   /* none of these is up to date */
  bool over;                    /* the history ends here */
  bool blank;                   /* a copy has been made so */
  bool lossy;                   /* a leg has lost its cache in it */
  unsigned long in_sync;        /* legs, when it started */
};

extern struct plan plan;
extern struct phase phase;
extern struct sim_device *legs[SIM_MAX_LEGS], *copies[SIM_MAX_COPIES];
extern struct dm_mirror *mirror;

/* From LOW to HIGH, by the plan. */
extern uint32_t sim_pick (uint32_t low, uint32_t high);
/* Between two requests. */
extern void sim_pause (void);

/* Fibers of sim-faults.c. */
extern void *sim_bad_luck (void *unused);
extern void *sim_user (void *unused);
extern void sim_add_leg (struct sim_device *dev);
/* Somebody sets the clock, right or wrong. */
extern void sim_set_clock (void);

/* Others write to legs while no server runs; IN_ORDER: the last one ended properly. */
extern void sim_edit_unserved (bool in_order);
/* Keep what is there; blank some of it, or set it back to that, before a start. */
extern void sim_save_some (void);
extern void sim_replace_some (void);
/* Which of these the next start gets to see. */
extern void sim_show_replaced (void);
/* Legs beside a copy that was set back: the same may have been done to them. */
extern unsigned long sim_beside_old_copies (void);
/* Legs in sync that are another disk, and that only samples can know. */
extern unsigned long sim_other_disks (void);
/* Legs to which others have written, and that the mirror has not looked at since: by
 * number in the log.
 */
extern unsigned long sim_edited (void);
/* The mirror has looked at those that it uses, and at the time of these. */
extern void sim_note_looked (unsigned long set);
/* A server has ended: legs in sync, says the log, have all that it copied. */
extern void sim_note_joined (void);
extern void sim_note_late (unsigned long in_sync, uint64_t killed);
extern unsigned long sim_as_known (const struct sim_record *seen);

/* Count an event if a leg is being recovered, slowly. */
extern void sim_count_in_recovery (enum sim_event event);

/* Is it in sync, by what the log says? */
extern bool sim_in_sync (const struct sim_record *record,
                         const struct sim_device *dev);
/* Clients, users and bad luck, until all have done what they wanted. */
extern void sim_run_clients (void);
/* Nothing goes wrong any more: wait until all legs are in sync. */
extern void sim_settle (void);

/* sim-clients.c.  Something is wrong with it now. */
extern bool sim_is_faulty (const struct sim_device *dev);
/* Enough is and was right in this phase: no request may fail. */
extern bool sim_must_succeed (void);

#endif /* DMIO_SIM_PLAN_H */
