/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* That the eight functions, the callback and the structures are to the
 * letter what callers of the kernel's dm-io know.  Compiled with -Werror
 * against the installed header by test-install.sh.
 */

#include <dm-io.h>

static int (*get) (unsigned int) = dm_io_get;
static void (*put) (unsigned int) = dm_io_put;

static int (*io_sync) (unsigned int, struct io_region *, int,
                       struct page_list *, unsigned int,
                       unsigned long *) = dm_io_sync;
static int (*io_async) (unsigned int, struct io_region *, int,
                        struct page_list *, unsigned int,
                        io_notify_fn, void *) = dm_io_async;
static int (*sync_bvec) (unsigned int, struct io_region *, int,
                         struct bio_vec *, unsigned long *) = dm_io_sync_bvec;
static int (*async_bvec) (unsigned int, struct io_region *, int,
                          struct bio_vec *,
                          io_notify_fn, void *) = dm_io_async_bvec;
static int (*sync_vm) (unsigned int, struct io_region *, int,
                       void *, unsigned long *) = dm_io_sync_vm;
static int (*async_vm) (unsigned int, struct io_region *, int,
                        void *, io_notify_fn, void *) = dm_io_async_vm;

static void
notify (unsigned long error, void *context)
{
  *(unsigned long *) context = error;
}

int
main (void)
{
  void (*fn) (unsigned long, void *) = notify;
  io_notify_fn as_callback = fn;

  struct page page = { { 0 } };
  struct page_list list = { .next = NULL, .page = &page };
  struct bio_vec bvec = {
    .bv_page = &page, .bv_len = 512, .bv_offset = 0,
  };
  struct block_device *bdev = NULL;
  sector_t sector = 0;
  struct io_region where = { .bdev = bdev, .sector = sector, .count = 0 };
  unsigned long bits = 1;

  /* All of these are refused, for want of a device. */
  return !(get (1) == 0 &&
           io_sync (1, &where, READ, &list, 0, &bits) < 0 && bits == 0 &&
           io_async (1, &where, WRITE, &list, 0, as_callback, &bits) < 0 &&
           sync_bvec (1, &where, READ, &bvec, &bits) < 0 &&
           async_bvec (1, &where, WRITE, &bvec, as_callback, &bits) < 0 &&
           sync_vm (1, &where, READ, &page, &bits) < 0 &&
           async_vm (1, &where, WRITE, &page, as_callback, &bits) < 0 &&
           (put (1), 1));
}
