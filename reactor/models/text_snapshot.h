/*
 * A text's characters as bytes, and back: the snapshots of model `text`.
 *
 * One msgpack array: [is anything anchored behind the beginning, authors, runs, text].
 *
 *   authors   an array of [origin, insertions]: binary; of the insertions, in their order, groups of
 *             four numbers: how many in a row have these, by how much the HLC is higher than the one
 *             before, by how much the seq is, and characters
 *   runs      binary: in the order of the text, four numbers each: author, first number less the one
 *             behind the author's last run here (zigzag), count, and bit 0: deleted, bit 1: branched
 *   text      what is visible
 *
 * Numbers are of variable length, seven bits a byte, the lowest first (LEB128). Neighbours that could be
 * one run are written as one, so that the bytes do not hang on how the state came to be.
 *
 * Size: the visible text, 4 to 8 bytes a run, and for each operation that inserted 4 to 9 bytes, or
 * nothing where it is as far from the one before as that is from its own: within a job.
 *
 * Threads: pure functions over a state.
 */
#ifndef TANDEM_REACTOR_MODELS_TEXT_SNAPSHOT_H
#define TANDEM_REACTOR_MODELS_TEXT_SNAPSHOT_H

#include "reactor/models/text_sequence.h"
#include "store/msgpack.h"

tandem_err td_text_save(const td_sequence *sequence, tandem_writer *out);
/* TANDEM_E_CORRUPT, TANDEM_E_NOMEM. */
tandem_err td_text_restore(tandem_slice snapshot, td_sequence **out);

#endif
