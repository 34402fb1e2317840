#include "sync/coverage.h"

#include <stdlib.h>

#include <utlist.h>

static void origin_free(void *owner)
{
    td_origin_cover *origin = owner;

    free(origin->heads);
    free(origin->passed);
    free(origin->paired);
    free(origin->asked);
    free(origin->told);
    free(origin->lacks_before);
    free(origin->void_lacks);
    free(origin->lacks);
    free(origin->our_lacks);
    free(origin);
}

static void collection_free(void *owner)
{
    td_collection_cover *collection = owner;

    td_pair_covers_free(&collection->pairs);
    td_ranges_release(&collection->ranges);
    td_hash_table_clear(&collection->origins, origin_free);
    free(collection);
}

void td_coverage_release(td_coverage *coverage)
{
    td_hash_table_clear(&coverage->collections, collection_free);
    memset(coverage, 0, sizeof(*coverage));
}

td_collection_cover *td_coverage_find(td_coverage *coverage, tandem_slice name)
{
    return td_hash_table_find(&coverage->collections, name);
}

tandem_err td_coverage_collection(td_coverage *coverage, tandem_slice name,
                                  td_collection_cover **out)
{
    td_collection_cover *collection = td_coverage_find(coverage, name);
    tandem_err err;

    if (collection) {
        *out = collection;
        return TANDEM_OK;
    }
    if (td_hash_table_count(&coverage->collections) >= TD_COLLECTIONS_MAX)
        return TANDEM_E_LIMIT;
    if (!(collection = calloc(1, sizeof(*collection) + name.size)))
        return TANDEM_E_NOMEM;
    memcpy(collection->text, name.bytes, name.size);
    collection->name = tandem_slice_of(collection->text, name.size);
    collection->stays = coverage->gives && !td_share_has(coverage->gives, name);
    err = td_hash_table_add(&coverage->collections, &collection->hash_entry, collection->name,
                            collection);
    if (err != TANDEM_OK) {
        free(collection);
        return err;
    }
    coverage->unknown++;
    *out = collection;
    return TANDEM_OK;
}

void td_coverage_set_known(td_coverage *coverage, td_collection_cover *collection, bool known)
{
    if (collection->known == known)
        return;
    collection->known = known;
    if (known)
        coverage->unknown--;
    else
        coverage->unknown++;
}

uint64_t td_coverage_base(const td_collection_cover *collection, const uint8_t *origin)
{
    return collection->base_in_part && !td_ranges_equal(&collection->ranges, origin)
               ? 0
               : collection->base_ordinal;
}

td_origin_cover *td_coverage_find_origin(td_collection_cover *collection, const uint8_t *origin)
{
    return td_hash_table_find(&collection->origins, tandem_slice_of(origin, TANDEM_ORIGIN_BYTES));
}

tandem_err td_coverage_origin(td_coverage *coverage, td_collection_cover *collection,
                              const uint8_t *origin, td_origin_cover **out)
{
    td_origin_cover *cover = td_coverage_find_origin(collection, origin);
    tandem_err err;

    if (cover) {
        *out = cover;
        return TANDEM_OK;
    }
    if (td_hash_table_count(&collection->origins) >= TD_ORIGINS_MAX ||
        coverage->origin_count >= TD_COVERS_MAX)
        return TANDEM_E_LIMIT;
    if (!(cover = calloc(1, sizeof(*cover))))
        return TANDEM_E_NOMEM;
    memcpy(cover->origin, origin, TANDEM_ORIGIN_BYTES);
    cover->collection = collection;
    err = td_hash_table_add(&collection->origins, &cover->hash_entry,
                            tandem_slice_of(cover->origin, TANDEM_ORIGIN_BYTES), cover);
    if (err != TANDEM_OK) {
        free(cover);
        return err;
    }
    coverage->origin_count++;
    *out = cover;
    return TANDEM_OK;
}

static bool goes_whole(const td_coverage *coverage)
{
    return !coverage->gives || td_filter_is_all(&coverage->gives->filter);
}

/* Does a lack of the peer's keep back what we hold up to seq, and what goes there? */
static bool counts(const td_coverage *coverage, const td_origin_cover *origin, const td_lack *lack,
                   uint64_t seq)
{
    return goes_whole(coverage) && lack->last <= seq && lack->followed &&
           !td_coverage_has_lack(origin->our_lacks, origin->our_lack_count, lack->last, lack->hash);
}

bool td_coverage_lacks_some(const td_coverage *coverage, const td_origin_cover *origin,
                            uint64_t seq)
{
    for (unsigned i = 0; i < origin->lack_count; i++)
        if (counts(coverage, origin, &origin->lacks[i], seq))
            return true;
    return false;
}

static void count_lag(td_coverage *coverage, td_origin_cover *origin)
{
    uint64_t reached = origin->peer_seq > origin->passed_seq ? origin->peer_seq : origin->passed_seq;

    coverage->lag -= origin->lag;
    coverage->refused -= origin->refused;
    origin->lag = origin->our_seq > reached ? origin->our_seq - reached : 0;
    origin->refused = 0;
    for (unsigned i = 0; i < origin->lack_count; i++) {
        const td_lack *lack = &origin->lacks[i];
        uint64_t size = lack->last - lack->first + 1;

        if (!counts(coverage, origin, lack, origin->our_seq))
            continue;
        if (lack->last <= reached)
            origin->lag += size;
        if (lack->reason != TANDEM_OK)
            origin->refused += size;
    }
    if (origin->lag < origin->unmet)
        origin->lag = origin->unmet;
    if (origin->collection->stays)
        origin->lag = 0;
    if (origin->refused > origin->lag)
        origin->refused = origin->lag;
    coverage->lag += origin->lag;
    coverage->refused += origin->refused;
}

/* ---- Lacks ---- */

void td_coverage_set_refused_here(td_coverage *coverage, td_origin_cover *origin, uint64_t count)
{
    coverage->refused_here += count - origin->refused_here;
    origin->refused_here = count;
}

const td_lack *td_coverage_lack_at(const td_lack *lacks, unsigned count, uint64_t seq)
{
    for (unsigned i = 0; i < count; i++)
        if (lacks[i].first <= seq && seq <= lacks[i].last)
            return &lacks[i];
    return NULL;
}

uint64_t td_coverage_behind_lacks(const td_lack *lacks, unsigned count, uint64_t seq)
{
    const td_lack *lack;

    while ((lack = td_coverage_lack_at(lacks, count, seq)))
        seq = lack->last + 1;
    return seq;
}

bool td_coverage_has_lack(const td_lack *lacks, unsigned count, uint64_t last,
                          const uint8_t *hash)
{
    for (unsigned i = 0; i < count; i++)
        if (lacks[i].last == last && !memcmp(lacks[i].hash, hash, TANDEM_HASH_BYTES))
            return true;
    return false;
}

static tandem_err replace_lacks(td_lack **list, unsigned *list_count, const td_lack *lacks,
                                unsigned count)
{
    td_lack *kept = NULL;

    if (count) {
        if (!(kept = malloc(count * sizeof(*kept))))
            return TANDEM_E_NOMEM;
        memcpy(kept, lacks, count * sizeof(*kept));
    }
    free(*list);
    *list = kept;
    *list_count = count;
    return TANDEM_OK;
}

void td_coverage_begin_lacks(td_coverage *coverage, td_origin_cover *origin)
{
    free(origin->lacks_before);
    origin->lacks_before = origin->lacks;
    origin->lacks_before_count = origin->lack_count;
    origin->lacks = NULL;
    origin->lack_count = 0;
    count_lag(coverage, origin);
}

/* Where the first lack begins that is in one list, and not in the other. */
static uint64_t first_gone(const td_lack *before, unsigned before_count, const td_lack *lacks,
                           unsigned count)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; i < before_count; i++)
        if (before[i].first < first &&
            !td_coverage_has_lack(lacks, count, before[i].last, before[i].hash))
            first = before[i].first;
    return first;
}

bool td_coverage_lacks_gone(td_origin_cover *origin)
{
    bool gone = first_gone(origin->lacks_before, origin->lacks_before_count, origin->lacks,
                           origin->lack_count) != UINT64_MAX;

    free(origin->lacks_before);
    origin->lacks_before = NULL;
    origin->lacks_before_count = 0;
    return gone;
}

void td_coverage_hold_lack(td_coverage *coverage, td_origin_cover *origin, td_lack *lack)
{
    lack->followed = true;
    count_lag(coverage, origin);
}

tandem_err td_coverage_add_lack(td_coverage *coverage, td_origin_cover *origin,
                                const td_lack *lack)
{
    td_lack *grown = realloc(origin->lacks, (origin->lack_count + 1) * sizeof(*grown));

    if (!grown)
        return TANDEM_E_NOMEM;
    origin->lacks = grown;
    grown[origin->lack_count++] = *lack;
    count_lag(coverage, origin);
    return TANDEM_OK;
}

tandem_err td_coverage_set_our_lacks(td_coverage *coverage, td_origin_cover *origin,
                                     const td_lack *lacks, unsigned count,
                                     uint64_t *first_gone_out)
{
    tandem_err err;

    *first_gone_out = first_gone(origin->our_lacks, origin->our_lack_count, lacks, count);
    if (!count && !origin->our_lack_count)
        return TANDEM_OK;
    err = replace_lacks(&origin->our_lacks, &origin->our_lack_count, lacks, count);
    if (err == TANDEM_OK)
        count_lag(coverage, origin);
    return err;
}

static bool has_head(const td_head *heads, unsigned count, const td_head *head)
{
    for (unsigned i = 0; i < count; i++)
        if (heads[i].seq == head->seq && !memcmp(heads[i].hash, head->hash, TANDEM_HASH_BYTES))
            return true;
    return false;
}

static tandem_err replace_heads(td_head **list, unsigned *list_count, const td_head *heads,
                                unsigned count)
{
    td_head *kept = NULL;

    if (count) {
        if (!(kept = malloc(count * sizeof(*kept))))
            return TANDEM_E_NOMEM;
        memcpy(kept, heads, count * sizeof(*kept));
    }
    free(*list);
    *list = kept;
    *list_count = count;
    return TANDEM_OK;
}

tandem_err td_coverage_set_heads(td_coverage *coverage, td_origin_cover *origin,
                                 const td_head *heads, unsigned count)
{
    tandem_err err = replace_heads(&origin->heads, &origin->head_count, heads, count);

    if (err != TANDEM_OK)
        return err;
    origin->peer_seq = count ? heads[count - 1].seq : 0;
    count_lag(coverage, origin);
    return TANDEM_OK;
}

void td_coverage_acknowledge(td_coverage *coverage, td_origin_cover *origin, uint64_t seq)
{
    if (seq > origin->peer_seq)
        origin->peer_seq = seq;
    count_lag(coverage, origin);
}

void td_coverage_pass(td_coverage *coverage, td_origin_cover *origin, uint64_t seq)
{
    if (seq > origin->passed_seq)
        origin->passed_seq = seq;
    count_lag(coverage, origin);
}

void td_coverage_pass_back(td_coverage *coverage, td_origin_cover *origin, uint64_t seq)
{
    if (seq < origin->passed_seq)
        origin->passed_seq = seq;
    count_lag(coverage, origin);
}

tandem_err td_coverage_pass_heads(td_origin_cover *origin, const td_head *heads, unsigned count)
{
    return replace_heads(&origin->passed, &origin->passed_count, heads, count);
}

tandem_err td_coverage_pair_heads(td_origin_cover *origin, const td_head *heads, unsigned count)
{
    return replace_heads(&origin->paired, &origin->paired_count, heads, count);
}

void td_coverage_part(td_coverage *coverage, td_origin_cover *origin)
{
    if (origin->parted)
        return; /* what was passed since is of ours */
    origin->parted = true;
    origin->passed_seq = 0;
    count_lag(coverage, origin);
}

tandem_err td_coverage_set_asked(td_origin_cover *origin, const td_head *heads, unsigned count)
{
    origin->asked_sent = false;
    return replace_heads(&origin->asked, &origin->asked_count, heads, count);
}

tandem_err td_coverage_set_told(td_origin_cover *origin, const td_head *heads, unsigned count)
{
    return replace_heads(&origin->told, &origin->told_count, heads, count);
}

tandem_err td_coverage_add_void(td_origin_cover *origin, const td_head *last)
{
    td_head *grown;

    if (has_head(origin->void_lacks, origin->void_count, last))
        return TANDEM_OK;
    if (!(grown = realloc(origin->void_lacks, (origin->void_count + 1) * sizeof(*grown))))
        return TANDEM_E_NOMEM;
    origin->void_lacks = grown;
    grown[origin->void_count++] = *last;
    return TANDEM_OK;
}

void td_coverage_look_at_void(td_origin_cover *origin, const td_head *heads, unsigned count)
{
    uint64_t from = count == origin->head_count ? UINT64_MAX : 0;
    unsigned kept = 0;

    for (unsigned i = 0; i < origin->head_count; i++)
        if (origin->heads[i].seq < from && !has_head(heads, count, &origin->heads[i]))
            from = origin->heads[i].seq;
    for (unsigned i = 0; i < origin->void_count; i++)
        if (origin->void_lacks[i].seq <= from)
            origin->void_lacks[kept++] = origin->void_lacks[i];
    origin->void_count = kept;
}

bool td_coverage_is_void(const td_origin_cover *origin, const td_lack *lack)
{
    td_head last = {.seq = lack->last};

    memcpy(last.hash, lack->hash, TANDEM_HASH_BYTES);
    return has_head(origin->void_lacks, origin->void_count, &last);
}

bool td_coverage_refuses(const td_origin_cover *origin, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < origin->lack_count; i++)
        if (origin->lacks[i].first <= last && origin->lacks[i].last >= first)
            return true;
    return false;
}

void td_coverage_acknowledge_all(td_coverage *coverage, td_origin_cover *origin)
{
    origin->unmet = 0;
    td_coverage_acknowledge(coverage, origin, origin->our_seq);
}

bool td_coverage_is_announced(const td_origin_cover *origin, const td_head *head)
{
    return has_head(origin->heads, origin->head_count, head);
}

bool td_coverage_is_told(const td_origin_cover *origin, const td_head *head)
{
    return has_head(origin->told, origin->told_count, head);
}

/*
 * Where the peer has announced nothing that we lack, a head of ours that it did not announce is not
 * held there: else it would be one of its heads, or lie behind one, which we would hold.
 */
void td_coverage_set_our_heads(td_coverage *coverage, td_origin_cover *origin,
                               const td_head *heads, unsigned count)
{
    unsigned met = 0;

    for (unsigned i = 0; i < count; i++)
        met += has_head(origin->heads, origin->head_count, &heads[i]) ||
               has_head(origin->passed, origin->passed_count, &heads[i]) ||
               has_head(origin->paired, origin->paired_count, &heads[i]);
    origin->unmet = count > 1 && !origin->vague ? count - met : 0;
    if (count > 1 && met == count)
        td_coverage_pass(coverage, origin, heads[count - 1].seq);
    td_coverage_set_ours(coverage, origin, heads[count - 1].seq);
}

void td_coverage_set_ours(td_coverage *coverage, td_origin_cover *origin, uint64_t seq)
{
    if (seq > origin->our_seq)
        origin->our_seq = seq;
    count_lag(coverage, origin);
}

void td_coverage_set_vague(td_coverage *coverage, td_origin_cover *origin, bool vague)
{
    origin->vague = vague;
    if (!vague)
        return;
    origin->unmet = 0;
    count_lag(coverage, origin);
}

void td_coverage_set_lacking(td_coverage *coverage, td_origin_cover *origin, bool lacking,
                             uint64_t now_ms)
{
    if (origin->lacking == lacking)
        return;
    origin->lacking = lacking;
    if (lacking) {
        origin->lacking_since_ms = now_ms;
        origin->is_claim = false;
        DL_APPEND2(coverage->lacking, origin, prev_lacking, next_lacking);
        coverage->lacking_count++;
    } else {
        origin->back = 0;
        DL_DELETE2(coverage->lacking, origin, prev_lacking, next_lacking);
        coverage->lacking_count--;
    }
}

uint64_t td_coverage_lacking(const td_coverage *coverage)
{
    const td_origin_cover *origin;
    uint64_t lacking = 0;

    DL_FOREACH2(coverage->lacking, origin, next_lacking)
    {
        uint64_t ours = origin->in_seq > origin->our_seq ? origin->in_seq : origin->our_seq;

        lacking += origin->lacking_seq > ours ? origin->lacking_seq - ours : 1;
    }
    return lacking;
}

void td_coverage_mark_dirty(td_origin_cover *origin)
{
    if (origin->dirty)
        return;
    origin->dirty = true;
    origin->next_dirty = origin->collection->dirty;
    origin->collection->dirty = origin;
}
