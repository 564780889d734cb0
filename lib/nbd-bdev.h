/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A device on an NBD server, as its parts see it: nbd-commands.c makes
 * commands of operations, nbd-reconnect.c loses connections and gets new
 * ones, nbd-waited.c has some more operations, and block-device-nbd.c the
 * threads.  The comment there tells about locks.
 */

#ifndef DMIO_NBD_BDEV_H
#define DMIO_NBD_BDEV_H

#include <pthread.h>

#include "block-device.h"
#include "clock.h"
#include "nbd-connect.h"
#include "nbd-disconnect.h"

/* Commands in flight on all connections of a device. */
#define NBD_COMMANDS 256

/* Delay before connections that worked are made again. */
#define NBD_FIRST_DELAY (NSEC_PER_SEC / 10)

/* A server that was sent nothing for this long is asked if it is there. */
#define NBD_PROBE_NSEC NSEC_PER_SEC

/* Operations beside those of dm-io; see struct nbd_waited. */
#define NBD_OP_EXTENTS ((enum dm_io_op) (DM_IO_WRITE_ZEROES + 1))
#define NBD_OP_PREFETCH ((enum dm_io_op) (DM_IO_WRITE_ZEROES + 2))

/* An operation of these kinds, which somebody waits for. */
struct nbd_waited {
  struct bdev_io io;
  pthread_mutex_t lock;         /* owns the next two */
  pthread_cond_t done;
  bool ended;
  int error;

  /* The owner thread's, of NBD_OP_EXTENTS. */
  struct bdev_extent *extents;
  int n, max;
};

/* A command in flight, or in the list of free ones. */
struct nbd_command {
  struct nbd_command *prev, *next;
  struct nbd_bdev *nbd;
  struct bdev_io *io;
  unsigned int connection;
  uint64_t deadline;
  bool flying;                  /* it is in that list: it has not been answered */
  bool remembered;              /* it has ended, and libnbd still knows it */
  bool flush, fua;
  bool durable;                 /* a change, once acknowledged */
  uint64_t changes;             /* a flush: what it makes durable */
  uint64_t number;              /* of a flush, or with FUA: in the order of sending */
  unsigned int failures;        /* a flush: flush_failures when it was sent */
  uint64_t held_by;             /* ... that has succeeded: by those up to this number */
  struct memory_cursor data;    /* of a read or write, in */
  void *buffer;
  size_t length;
  struct page *bounced;         /* NULL, or the buffer instead of data */
  int64_t cookie;               /* of libnbd */
  int error;                    /* when it has ended, positive */
};

struct nbd_command_list {
  struct nbd_command *first, *last;
};

struct nbd_bdev {
  struct block_device common;
  char *uri;
  char *export_name;            /* nbd_export_of_uri */
  unsigned int timeout;         /* seconds */
  struct nbd_bdev *next_open;   /* owned by open_lock */
  struct nbd_export export;     /* what it was when it was opened */
  int wake_fd;                  /* wakes the owner from poll */
  pthread_t thread;

  pthread_mutex_t inbox_lock;
  struct bdev_io *inbox, **inbox_end; /* to be begun */
  bool beginning;               /* somebody is at it */

  pthread_mutex_t lock;
  bool has_thread, stop;
  bool polling;                 /* the owner is, for */
  short polled[NBD_CONNECTIONS]; /* these events and */
  uint64_t polled_until;        /* that long */
  bool readable;                /* it found something to read */
  uint64_t overdue_since;       /* 0, or since when a command is late */

  struct nbd_connections connections; /* n is 0: there are none */
  unsigned int in_flight[NBD_CONNECTIONS];
  uint64_t bytes;               /* of the reads and writes in flight */
  struct nbd_command commands[NBD_COMMANDS];
  struct nbd_command_list free, flying, ended; /* flying: by deadline */
  struct nbd_command_list held; /* flushes: they end when others have */
  struct bdev_io *waiting, **waiting_end; /* for a command or memory */
  uint64_t retry_at;            /* 0, or when there may be memory */
  uint64_t sent_at;             /* when the last command was sent */
  bool probing;                 /* this operation is under way: */
  struct nbd_waited probe;
  struct bdev_extent probe_extent; /* its answer, which nobody reads */
  bool broken;                  /* a connection was found to have failed */
  int error;                    /* 0, or the errno of that */
  char *why;                    /* NULL, or what libnbd said then */
  struct nbd_farewell farewell; /* old connections that are not over */

  struct nbd_attempt *attempt;
  uint64_t delay, attempt_at;
  char *last_error;             /* why attempts fail, when it was said */

  bool failed;                  /* everything fails until it is revived, */
  bool for_good;                /* or for ever */
  bool reviving;                /* somebody wants to revive it */
  bool must_settle;             /* the next connections, before that; */
  uint64_t settled_at;          /* those there are have by then */

  /* What the connections may have lost when they are lost. */
  uint64_t changes;             /* acknowledged, but not as durable */
  uint64_t flushed;             /* of these */
  uint64_t flushes;             /* sent, and commands with FUA */
  bool missed;                  /* a change has failed, or nobody knows */
  bool cut_off;                 /* a change or flush, by the end of its connection */
  int flush_error;              /* of the first that failed, positive; until nbd_flush_again */
  unsigned int flush_failures;  /* how many have failed, or were cut off */
  int flush_failure;            /* of the last of these */
};

/* All these are called with the lock held, and may call io->done. */

extern void nbd_commands_init (struct nbd_bdev *nbd);

/* Do of an operation what can be done now: send commands, wait until it
 * can, or end it.
 */
extern void nbd_run_io (struct nbd_bdev *nbd, struct bdev_io *io);

/* Try again those that wait. */
extern void nbd_run_waiting (struct nbd_bdev *nbd);

/* Go on with the operations whose commands libnbd has ended. */
extern void nbd_end_commands (struct nbd_bdev *nbd);

/* True if the server may have, or lose, what the other devices have not:
 * changes in flight, or not flushed, or that have failed; or a flush that may have been told
 * of a loss.
 */
extern bool nbd_may_differ (const struct nbd_bdev *nbd);

/* True if changes or flushes have no answer: the server may do them later. */
extern bool nbd_are_unanswered (const struct nbd_bdev *nbd);

/* A connection has failed, with this errno, or 0. */
extern void nbd_set_broken (struct nbd_bdev *nbd, int error);

/* The connections are about to be closed: all commands in flight end with
 * ERROR, an errno, and libnbd is asked about those that have ended, while
 * that is possible.  nbd_end_commands goes on with their operations.
 */
extern void nbd_abandon_commands (struct nbd_bdev *nbd, int error);

/* When to ask an idle server if it is there, on clock_now; UINT64_MAX: not
 * now.  It is asked for the block status of its first block, and nobody waits
 * for that: the command does for an idle connection what others do for a busy
 * one.  It finds that the server has gone, hangs, or is shutting down.
 */
extern uint64_t nbd_probe_at (const struct nbd_bdev *nbd);
extern void nbd_probe (struct nbd_bdev *nbd);

/* What is left of the operation is not done. */
extern void nbd_drop_rest (struct bdev_io *io, int error);

/* Start the owner thread if there is none.  Returns 0 or an errno. */
extern int nbd_start_thread (struct nbd_bdev *nbd);

/* Give up connections of which one has failed. */
extern void nbd_give_up_broken (struct nbd_bdev *nbd);

/* Do what is due at this time, and when to call it again, on clock_now. */
extern void nbd_keep_time (struct nbd_bdev *nbd);
extern uint64_t nbd_next_event (const struct nbd_bdev *nbd);

/* Take what has become of an attempt to connect, which is called off if it
 * has not ended.
 */
extern void nbd_end_attempt (struct nbd_bdev *nbd);

/*----------------------------------------------------------------------
 * And these are not
 */

/* Wake the owner thread from poll. */
extern void nbd_wake (struct nbd_bdev *nbd);

/* See bdev_revive, bdev_extents and bdev_prefetch. */
extern int nbd_revive (struct block_device *bdev);
extern void nbd_flush_again (struct block_device *bdev);
extern int nbd_extents (struct block_device *bdev, uint64_t offset,
                        uint64_t length, struct bdev_extent *extents, int max);
extern int nbd_prefetch (struct block_device *bdev, uint64_t offset,
                         uint64_t length);

#endif /* DMIO_NBD_BDEV_H */
