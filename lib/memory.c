/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The three memory types of a request behind one cursor.  Nothing is
 * allocated and nothing is shared, so there are no locks.
 */

#include <config.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "memory.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

static bool
misaligned (uintptr_t value, unsigned int alignment)
{
  return value % alignment != 0;
}

static int
check_page_list (const struct dm_io_memory *mem, uint64_t length)
{
  const struct page_list *pl;
  unsigned int offset = mem->offset;

  if (offset >= DM_IO_PAGE_SIZE || misaligned (offset, DM_IO_SECTOR_SIZE))
    return -EINVAL;

  for (pl = mem->ptr.pl; length > 0; pl = pl->next) {
    if (pl == NULL || pl->page == NULL ||
        misaligned ((uintptr_t) pl->page, DM_IO_PAGE_SIZE))
      return -EINVAL;
    length -= MIN (length, DM_IO_PAGE_SIZE - offset);
    offset = 0;
  }
  return 0;
}

static int
check_bvec (const struct dm_io_memory *mem, uint64_t length)
{
  const struct bio_vec *bv;

  if (mem->ptr.bvec == NULL)
    return -EINVAL;
  for (bv = mem->ptr.bvec; length > 0; bv++) {
    if (bv->bv_page == NULL ||
        misaligned ((uintptr_t) bv->bv_page, DM_IO_PAGE_SIZE) ||
        bv->bv_len == 0 ||
        misaligned (bv->bv_len, DM_IO_SECTOR_SIZE) ||
        misaligned (bv->bv_offset, DM_IO_SECTOR_SIZE) ||
        bv->bv_offset > DM_IO_PAGE_SIZE ||
        bv->bv_len > DM_IO_PAGE_SIZE - bv->bv_offset)
      return -EINVAL;
    length -= MIN (length, bv->bv_len);
  }
  return 0;
}

int
memory_check (const struct dm_io_memory *mem, uint64_t length)
{
  if (mem->type != DM_IO_PAGE_LIST && mem->offset != 0)
    return -EINVAL;
  if (length > mem->length)
    return -EINVAL;

  switch (mem->type) {
  case DM_IO_PAGE_LIST:
    return check_page_list (mem, length);
  case DM_IO_BVEC:
    return length > 0 ? check_bvec (mem, length) : 0;
  case DM_IO_VM:
    return mem->ptr.vm == NULL && length > 0 ? -EINVAL : 0;
  default:
    return -EINVAL;
  }
}

struct memory_cursor
memory_begin (const struct dm_io_memory *mem)
{
  struct memory_cursor cursor = { .type = mem->type, .offset = mem->offset };

  switch (mem->type) {
  case DM_IO_PAGE_LIST: cursor.at.pl = mem->ptr.pl; break;
  case DM_IO_BVEC: cursor.at.bvec = mem->ptr.bvec; break;
  case DM_IO_VM: cursor.at.vm = mem->ptr.vm; break;
  }
  return cursor;
}

/* The rest of the current element, at most length bytes of it. */
static struct iovec
current (const struct memory_cursor *cursor, uint64_t length)
{
  unsigned char *base = NULL;
  uint64_t left = 0;

  switch (cursor->type) {
  case DM_IO_PAGE_LIST:
    base = cursor->at.pl->page->data;
    left = DM_IO_PAGE_SIZE;
    break;
  case DM_IO_BVEC:
    base = cursor->at.bvec->bv_page->data + cursor->at.bvec->bv_offset;
    left = cursor->at.bvec->bv_len;
    break;
  case DM_IO_VM:
    base = cursor->at.vm;
    left = UINT64_MAX;
    break;
  }
  return (struct iovec) {
    .iov_base = base + cursor->offset,
    .iov_len = MIN (left - cursor->offset, length),
  };
}

/* Move on by a part of the current element, or by all of it. */
static void
step (struct memory_cursor *cursor, size_t bytes)
{
  cursor->offset += bytes;
  if (cursor->type == DM_IO_PAGE_LIST &&
      cursor->offset == DM_IO_PAGE_SIZE) {
    cursor->at.pl = cursor->at.pl->next;
    cursor->offset = 0;
  }
  else if (cursor->type == DM_IO_BVEC &&
           cursor->offset == cursor->at.bvec->bv_len) {
    cursor->at.bvec++;
    cursor->offset = 0;
  }
}

int
memory_iovecs (const struct memory_cursor *cursor, uint64_t length,
               struct iovec *iov, int max)
{
  struct memory_cursor c = *cursor;
  struct iovec next;
  int n = 0;

  while (length > 0) {
    next = current (&c, length);
    if (n > 0 && (unsigned char *) iov[n-1].iov_base + iov[n-1].iov_len ==
        (unsigned char *) next.iov_base)
      iov[n-1].iov_len += next.iov_len;
    else if (n < max)
      iov[n++] = next;
    else
      break;
    length -= next.iov_len;
    step (&c, next.iov_len);
  }
  return n;
}

void
memory_advance (struct memory_cursor *cursor, uint64_t bytes)
{
  size_t len;

  while (bytes > 0) {
    len = current (cursor, bytes).iov_len;
    step (cursor, len);
    bytes -= len;
  }
}

void
memory_clear (struct memory_cursor cursor, uint64_t length)
{
  struct iovec iov;

  while (length > 0) {
    iov = current (&cursor, length);
    memset (iov.iov_base, 0, iov.iov_len);
    step (&cursor, iov.iov_len);
    length -= iov.iov_len;
  }
}

void
memory_copy_out (struct memory_cursor cursor, void *buffer, uint64_t length)
{
  unsigned char *to = buffer;
  struct iovec iov;

  while (length > 0) {
    iov = current (&cursor, length);
    memcpy (to, iov.iov_base, iov.iov_len);
    step (&cursor, iov.iov_len);
    to += iov.iov_len;
    length -= iov.iov_len;
  }
}

void
memory_copy_in (struct memory_cursor cursor, const void *buffer,
                uint64_t length)
{
  const unsigned char *from = buffer;
  struct iovec iov;

  while (length > 0) {
    iov = current (&cursor, length);
    memcpy (iov.iov_base, from, iov.iov_len);
    step (&cursor, iov.iov_len);
    from += iov.iov_len;
    length -= iov.iov_len;
  }
}

size_t
memory_count_vectors (const struct dm_io_memory *mem, uint64_t length)
{
  struct memory_cursor c = memory_begin (mem);
  size_t n, len;

  for (n = 0; length > 0; n++) {
    len = current (&c, length).iov_len;
    step (&c, len);
    length -= len;
  }
  return n;
}

/* The page that the current element is in. */
static struct page *
current_page (const struct memory_cursor *cursor)
{
  return cursor->type == DM_IO_PAGE_LIST ?
    cursor->at.pl->page : cursor->at.bvec->bv_page;
}

void
memory_to_vectors (struct dm_io_memory *mem, uint64_t length,
                   struct bio_vec *vectors)
{
  struct memory_cursor c = memory_begin (mem);
  struct iovec iov;
  size_t i;

  for (i = 0; length > 0; i++) {
    iov = current (&c, length);
    vectors[i].bv_page = current_page (&c);
    vectors[i].bv_len = iov.iov_len;
    vectors[i].bv_offset =
      (unsigned char *) iov.iov_base - vectors[i].bv_page->data;
    step (&c, iov.iov_len);
    length -= iov.iov_len;
  }

  mem->type = DM_IO_BVEC;
  mem->offset = 0;
  mem->ptr.bvec = vectors;
}
