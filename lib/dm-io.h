/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Read one region or write many: the service of the Linux kernel's
 * dm-io, for ordinary programs.
 *
 * The names, types and argument order of struct io_region,
 * struct page_list, struct bio_vec, io_notify_fn and of the eight
 * functions from dm_io_get to dm_io_async_vm follow
 * drivers/md/dm-io.h of Linux 2.6; what each of them does is
 * described here, in dm_io(3) and in libdmio(3).
 *
 * All functions can be called from any thread, except where it is
 * said otherwise.  The library starts threads of its own when a
 * request first needs one, so open devices before fork(2) if you like,
 * but submit requests only after it.
 *
 * A write to a file beyond RLIMIT_FSIZE raises SIGXFSZ in the calling
 * thread, as write(2) does: ignore that signal to get EFBIG instead.
 */

#ifndef DMIO_DM_IO_H
#define DMIO_DM_IO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DM_IO_VERSION_MAJOR 0
#define DM_IO_VERSION_MINOR 1

/* All sector numbers and counts are in units of 512 bytes. */
typedef uint64_t sector_t;
#define DM_IO_SECTOR_SIZE 512

/* The largest num_regions: one bit of an unsigned long for each. */
#define DM_IO_MAX_REGIONS (8 * sizeof (unsigned long))

/* The values of "rw". */
#ifndef READ
#define READ 0
#endif
#ifndef WRITE
#define WRITE 1
#endif

/* One page of ordinary memory, aligned to its own size. */
#define DM_IO_PAGE_SIZE 4096
struct page {
  unsigned char data[DM_IO_PAGE_SIZE];
} __attribute__ ((__aligned__ (DM_IO_PAGE_SIZE)));

/* Pages in any order, one after another; the last has next == NULL. */
struct page_list {
  struct page_list *next;
  struct page *page;
};

/* bv_len bytes from bv_offset of one page.  Both are multiples of 512,
 * bv_len is not 0, and the vector does not leave its page.
 */
struct bio_vec {
  struct page *bv_page;
  unsigned int bv_len;
  unsigned int bv_offset;
};

/*----------------------------------------------------------------------
 * Block devices
 */

/* A regular file, a block device, a character device that behaves like
 * memory (/dev/full, /dev/zero), or an export of an NBD server.
 */
struct block_device;

/* Flags of dm_bdev_open. */
enum {
  DM_BDEV_READ_ONLY = 1 << 0,   /* never write */
  /* Of files and block devices: transfer past the page cache (O_DIRECT),
   * or through it.  With neither: block devices past it, files through it.
   */
  DM_BDEV_DIRECT = 1 << 1,
  DM_BDEV_BUFFERED = 1 << 2,
};

#define DM_BDEV_TIMEOUT 30      /* the default, in seconds */

/* Unused fields must be zero.
 * timeout: how long an NBD server may take, in seconds, to connect (with the
 *   name resolution and all) and to answer a command; 0 means
 *   DM_BDEV_TIMEOUT.  Files and block devices have none: the kernel
 *   gives nothing back before it is done with it.
 */
struct dm_bdev_options {
  unsigned int flags;
  unsigned int timeout;
};

/* Open a file, or connect to an NBD server.  OPTIONS may be NULL.
 *
 * A file that cannot be opened for writing (EACCES, EPERM, EROFS) is
 * opened read-only: every write to it then fails with EROFS.
 *
 * The lock is an open file description lock (fcntl(2)) over the whole
 * file.  It refuses and is refused by other users of this library and by
 * qemu, whose image locks it overlaps.  A file that is open read-only is
 * locked against writers only.  Block devices are also opened with O_EXCL,
 * so one that is mounted is refused.  Opening the same file or device
 * twice in one process is refused too, also by another name, and so is a loop
 * device beside its file, or a partition beside its disk, as far as they have
 * bytes in common and the kernel says so.  Character devices, which hold no
 * data, are neither locked nor refused.
 *
 * A NAME that begins with nbd://, nbds://, nbd+unix:// or nbds+unix:// is an
 * NBD URI as in the NBD project's doc/uri.md, with the queries socket=PATH,
 * tls-certificates=DIRECTORY and tls-psk-file=FILE; any other is refused, as
 * some turn the verification of the server off.  With nbds one of the last two
 * is needed, and certificates need a host name to be compared with: a
 * connection that is not authenticated is refused.  Relative paths in the
 * URI are those of the current directory now.  Nothing locks an export
 * against other clients of its server.
 *
 * An idle NBD server is asked once a second if it is there, by a block status
 * command if it has that.  When a server does not answer in time, answers that
 * it is shutting down (ESHUTDOWN), or ends the connection, the
 * requests in flight fail with ETIMEDOUT or ENOTCONN and so do new ones, until
 * the connection has been made again, in the background.  If changes or a flush
 * were in flight, or changes had not been flushed, they may be lost, or may
 * even land later, so that device fails everything (EIO) until it is opened
 * again; which should not be before the server has ended the old
 * connections.  (A mirror with a log knows what may be lost, and so can do
 * without that.)
 *
 * Returns NULL with errno set on error; if ERROR is not NULL, *ERROR
 * then points to a message that names the device and the remedy, to be
 * freed with free(3).
 */
extern struct block_device *dm_bdev_open (const char *name,
                                          const struct dm_bdev_options
                                          *options, char **error);

/* Close and unlock the device.  No request may be in flight on it.
 * Neither open nor close may be called from an io_notify_fn.  The close of
 * the last device also ends the threads of the library.  NULL is ignored.
 *
 * After direct I/O the kernel may keep the file's file system busy, for
 * umount(2), until the threads that did it have ended.
 */
extern void dm_bdev_close (struct block_device *bdev);

/* The size in sectors when it was opened; a last, partial sector does
 * not count.  A character device has no end: it says INT64_MAX / 512.
 */
extern sector_t dm_bdev_sectors (const struct block_device *bdev);

/* The unit of I/O in bytes, a power of two and at least
 * DM_IO_SECTOR_SIZE: the logical block size with direct I/O, the minimum
 * block size of an NBD server.  A region whose sector or count is not a
 * multiple of it fails with EINVAL before any of its bytes are touched.
 */
extern unsigned int dm_bdev_block_size (const struct block_device *bdev);

/* The name it was opened with. */
extern const char *dm_bdev_name (const struct block_device *bdev);

/* Non-zero if writes to it fail with EROFS. */
extern int dm_bdev_read_only (const struct block_device *bdev);

/*----------------------------------------------------------------------
 * Regions
 */

/* COUNT sectors of BDEV from SECTOR on.  Each region of a request has a
 * count of its own; all take the data from its start.  A region with
 * count 0 is skipped.
 */
struct io_region {
  struct block_device *bdev;
  sector_t sector;
  sector_t count;
};

/* The end of an asynchronous request.  Bit i of ERROR is set if any
 * part of the I/O to where[i] failed; for a read it is bit 0.
 *
 * Called exactly once, usually in a thread of the library, but possibly
 * in the caller's and before the submitting call has returned.  It must
 * not block.  It may free its context and submit more requests.
 */
typedef void (*io_notify_fn) (unsigned long error, void *context);

/* Reserve, or give back, what NUM_PAGES one-page asynchronous requests
 * need while in flight: requests and page-aligned bounce pages.  Calls
 * add up.
 *
 * With the reserve in use and no memory to be had, requests do not
 * fail: dm_io_async* then does the I/O before it returns.
 *
 * dm_io_get returns 0, or -ENOMEM with nothing reserved, also if that
 * would be more than 65536 pages in all.  dm_io_put of
 * more than is reserved is refused and logged.
 */
extern int dm_io_get (unsigned int num_pages);
extern void dm_io_put (unsigned int num_pages);

/* Read from exactly one region (rw READ) or write to 1 to
 * DM_IO_MAX_REGIONS regions (rw WRITE), and wait until all have ended.
 *
 * The memory is a page list of which the first OFFSET bytes (a multiple
 * of 512, less than a page) are passed over; bio vectors, as many as
 * the largest count needs; or one buffer at any address.
 *
 * Returns 0; -EIO if the I/O to any region failed; or -EINVAL if the
 * arguments are wrong, before any I/O: no regions or too many, a read
 * of two, a list that is too short, a misaligned vector or offset, a
 * range that wraps.  *ERROR_BITS, if ERROR_BITS is not NULL, is set in
 * every case: bit i if any part of the I/O to where[i] failed.  The
 * other regions still get all of theirs.
 *
 * A region that leaves its device or a write to a read-only device
 * fails before any of its bytes are touched.  Short transfers, EINTR
 * and EAGAIN (for half a minute) are resumed; the end of a file that
 * shrank is an error.  A region is transferred in parts of 1 MiB: when
 * one fails, the others are still done.  What a failed read did not read
 * is zero.
 *
 * There is no order between requests in flight.
 */
extern int dm_io_sync (unsigned int num_regions, struct io_region *where,
                       int rw, struct page_list *pl, unsigned int offset,
                       unsigned long *error_bits);
extern int dm_io_sync_bvec (unsigned int num_regions,
                            struct io_region *where, int rw,
                            struct bio_vec *bvec, unsigned long *error_bits);
extern int dm_io_sync_vm (unsigned int num_regions, struct io_region *where,
                          int rw, void *data, unsigned long *error_bits);

/* The same, without waiting.  Returns 0, and then FN is called exactly
 * once with CONTEXT; or -EINVAL as above, and FN is not called.
 *
 * WHERE, list nodes and vectors may be freed when the call returns, the
 * pages or the buffer only when FN is called.
 */
extern int dm_io_async (unsigned int num_regions, struct io_region *where,
                        int rw, struct page_list *pl, unsigned int offset,
                        io_notify_fn fn, void *context);
extern int dm_io_async_bvec (unsigned int num_regions,
                             struct io_region *where, int rw,
                             struct bio_vec *bvec,
                             io_notify_fn fn, void *context);
extern int dm_io_async_vm (unsigned int num_regions,
                           struct io_region *where, int rw, void *data,
                           io_notify_fn fn, void *context);

/*----------------------------------------------------------------------
 * The request form: all of the above, and what those cannot say
 */

enum dm_io_op {
  DM_IO_READ = READ,
  DM_IO_WRITE = WRITE,
  /* What earlier, completed writes left in caches becomes durable.
   * sector and count of the regions do not matter.  A device whose flush
   * has failed may have lost anything, and the kernel says so only once:
   * it fails every flush until it is opened again, and FUA, which for
   * files and block devices is a flush after the write.
   */
  DM_IO_FLUSH,
  /* The sectors are no longer needed.  Either all regions read as zero
   * afterwards, or none is changed: if one of the devices cannot punch
   * holes, nothing is done, with success.
   */
  DM_IO_DISCARD,
  /* The sectors read as zero.  Zeroes are written where a device knows
   * no better.
   */
  DM_IO_WRITE_ZEROES,
};

/* Flags of write, discard and write zeroes (-EINVAL with the others). */
enum {
  DM_IO_FUA = 1 << 0,      /* durable before it completes */
  DM_IO_PREFLUSH = 1 << 1, /* each region is flushed before it is written,
                            * also one with count 0; write only */
  DM_IO_NO_UNMAP = 1 << 2, /* keep the space allocated; write zeroes only */
};

enum dm_io_mem_type {
  DM_IO_PAGE_LIST,
  DM_IO_BVEC,
  DM_IO_VM,
};

/* length: how many bytes there are, so that a count which needs more is
 * refused (-EINVAL), or DM_IO_UNCHECKED if the caller vouches for that.
 * offset: of DM_IO_PAGE_LIST only, else 0.  The offset is not part of
 * length.
 */
#define DM_IO_UNCHECKED UINT64_MAX
struct dm_io_memory {
  enum dm_io_mem_type type;
  unsigned int offset;
  uint64_t length;
  union {
    struct page_list *pl;
    struct bio_vec *bvec;
    void *vm;
  } ptr;
};

/* What became of one region. */
struct dm_io_result {
  int error;                    /* 0, or an errno, positive */
  uint64_t nsec;                /* how long its I/O took */
};

/* Unused fields must be zero.
 * mem: of read and write only.
 * fn: NULL to wait until the request has ended.
 * results: NULL, or num_regions elements; they are written before FN is
 *   called or the call returns 0 or -EIO, and must live until then.
 */
struct dm_io_request {
  enum dm_io_op op;
  unsigned int flags;
  struct dm_io_memory mem;
  io_notify_fn fn;
  void *context;
  struct dm_io_result *results;
};

/* Submit a request.  Like dm_io_sync if request->fn is NULL; else like
 * dm_io_async, and ERROR_BITS is not used.  Only reads are restricted
 * to one region.  REQUEST may be freed when the call returns.
 */
extern int dm_io (const struct dm_io_request *request,
                  unsigned int num_regions, const struct io_region *where,
                  unsigned long *error_bits);

#ifdef __cplusplus
}
#endif

#endif /* DMIO_DM_IO_H */
