/*
 * The open group of an operations store, as its parts share it: `op_store.c` opens stores and commits,
 * `op_append.c` takes jobs, `op_refusals.c` refuses and wants what it does not take, `op_cover.c` keeps
 * what pairs cover.
 *
 * What a group has changed apart from the operations themselves (heads, runs, counters) is kept in memory
 * until the commit and written once there: a group of a thousand jobs then costs a thousand appends and a
 * handful of small entries. Nothing of it outlives the group, so there is no cache that could disagree with
 * the disk after a commit of unknown outcome.
 *
 * Threads: the writer's.
 */
#ifndef TANDEM_STORE_OP_GROUP_H
#define TANDEM_STORE_OP_GROUP_H

#include <stdatomic.h>

#include "store/hash_table.h"
#include "store/op_place.h"
#include "store/op_read.h"

/* A collection that the open group has looked at. */
typedef struct td_open_collection {
    tandem_slice name; /* into text */
    char text[TANDEM_NAME_BYTES_MAX];
    td_collection_record record; /* id 0: not there yet */
    bool dirty;
    bool may_prune; /* some pair may cover nothing more than heads do */
    td_hash_entry hash_entry;
} td_open_collection;

struct td_open_run {
    td_run run;
    uint8_t last_hash[TANDEM_HASH_BYTES];
};

struct td_origin_key {
    const td_open_collection *collection; /* its id is not given before it is needed */
    uint8_t origin[TANDEM_ORIGIN_BYTES];
};

/* An origin in a collection that the open group has looked at. */
typedef struct td_open_origin {
    struct td_origin_key key;
    td_open_collection *collection;
    td_vector_record vector;
    /* Each ends at a head: what is appended behind one makes it longer. */
    struct td_open_run runs[TANDEM_HEADS_MAX];
    unsigned run_count;
    bool dirty;
    td_hash_entry hash_entry;
} td_open_origin;

/* Others may hold a pointer to an identity that was left behind: all stay until the end. */
struct td_identity_node {
    td_identity identity;
    struct td_identity_node *before;
};

struct td_op_store {
    tandem_env *env;
    td_store *store;
    struct td_identity_node *_Atomic identity;
    struct td_identity_node *next_identity; /* of the open group */

    td_txn *txn; /* the open group */
    tandem_err group_err;
    td_position position;
    bool dirty;
    bool unproven; /* what a recovery found may not have been on disk: commit before confirming */
    int group_lacks; /* so many more, or fewer, with it */
    unsigned group_forks; /* origins that it made a fork */
    bool group_changes_lacks;
    atomic_int lacks;
    atomic_uint lack_changes;
    td_hash_table collections;
    td_hash_table origins;
    tandem_writer scratch;
};

/* What the group knows of a collection or an origin; read when it is asked for first. */
tandem_err td_group_collection(td_op_store *ops, tandem_slice name, td_open_collection **out);
tandem_err td_group_origin(td_op_store *ops, td_open_collection *collection, const uint8_t *origin,
                           td_open_origin **out);
/* The chain of an origin; open has room for its open runs, and lives as long. */
td_chain td_group_chain(const td_op_store *ops, const td_open_origin *origin,
                        td_run open[TANDEM_HEADS_MAX]);
/* A collection that is not there yet gets its id. */
void td_group_give_id(td_op_store *ops, td_open_collection *collection);
/* A change of lacks has an ordinal of its own, so that whoever follows those learns of it. */
void td_group_lacks_changed(td_op_store *ops, td_open_origin *origin);
/* Errors that say nothing about the job: the transaction may be half written. */
bool td_group_is_broken_by(tandem_err err);

/* Where a job stands in its chain. As td_job_place(). */
tandem_err td_group_look(td_op_store *ops, const td_operation *job, size_t count, bool part,
                         td_open_origin **origin_out, td_run open[TANDEM_HEADS_MAX],
                         td_chain *chain, td_place *place);
/* Record a lack. Behind it something loose may stand, even several branches. TANDEM_E_LIMIT. */
tandem_err td_group_add_lack(td_op_store *ops, td_open_origin *origin, const td_lack *lack);
/* Drop the pairs that cover nothing but what heads vouch for. */
tandem_err td_pairs_prune(td_op_store *ops, td_open_collection *collection);

#endif
