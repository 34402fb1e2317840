#include "store/op_links.h"

#include <stdlib.h>

void td_links_release(td_links *links)
{
    free(links->links);
    free(links->lacks);
    *links = (td_links){.links = NULL};
}

/* Room for one more of size bytes each. */
static tandem_err grow(void **list, size_t size, size_t count, size_t *capacity)
{
    size_t more = *capacity ? 2 * *capacity : 64;
    void *grown;

    if (count < *capacity)
        return TANDEM_OK;
    if (!(grown = realloc(*list, more * size)))
        return TANDEM_E_NOMEM;
    *list = grown;
    *capacity = more;
    return TANDEM_OK;
}

tandem_err td_links_add(td_links *links, const td_operation *operation, uint64_t ordinal)
{
    uint8_t place[TANDEM_HASH_BYTES];
    td_op_link *link;
    tandem_err err = grow((void **)&links->links, sizeof(*link), links->count, &links->capacity);

    if (err != TANDEM_OK)
        return err;
    td_operation_place(operation, place);
    link = &links->links[links->count++];
    *link = (td_op_link){.seq = operation->seq,
                         .ordinal = ordinal,
                         .place = td_get_u64(place),
                         .continues = operation->flags & TD_FLAG_CONTINUES};
    memcpy(link->hash, operation->hash, TANDEM_HASH_BYTES);
    memcpy(link->predecessor, operation->predecessor, TANDEM_HASH_BYTES);
    return TANDEM_OK;
}

tandem_err td_links_add_lack(td_links *links, const td_lack *lack)
{
    tandem_err err = grow((void **)&links->lacks, sizeof(*lack), links->lack_count,
                          &links->lack_capacity);

    if (err == TANDEM_OK)
        links->lacks[links->lack_count++] = *lack;
    return err;
}

static int link_compare(const void *a, const void *b)
{
    const td_op_link *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->hash, y->hash, TANDEM_HASH_BYTES);
}

/* From the last one back, so that what follows a lack is known before what it follows itself. */
static int lack_compare(const void *a, const void *b)
{
    const td_lack *x = a, *y = b;

    return x->last < y->last ? 1 : x->last > y->last ? -1 : 0;
}

static td_op_link *link_find(const td_links *links, uint64_t seq, const uint8_t *hash)
{
    td_op_link key = {.seq = seq};

    if (!links->count)
        return NULL;
    memcpy(key.hash, hash, TANDEM_HASH_BYTES);
    return bsearch(&key, links->links, links->count, sizeof(key), link_compare);
}

static td_lack *lack_find(const td_links *links, uint64_t seq, const uint8_t *hash)
{
    for (size_t i = 0; i < links->lack_count; i++)
        if (links->lacks[i].last == seq && !memcmp(links->lacks[i].hash, hash, TANDEM_HASH_BYTES))
            return &links->lacks[i];
    return NULL;
}

/* What (seq, hash) names is followed by something held, a lack perhaps only by way of which. False:
 * it is neither held nor lacking, nor the chain's root. */
static bool follow(const td_links *links, const uint8_t *root, uint64_t seq, const uint8_t *hash,
                   bool *lack_followed)
{
    td_op_link *link;
    td_lack *lack;

    if (seq == 0)
        return memcmp(hash, root, TANDEM_HASH_BYTES) == 0;
    if ((link = link_find(links, seq, hash))) {
        link->followed = true;
        return true;
    }
    if (!(lack = lack_find(links, seq, hash)))
        return false;
    lack_followed[lack - links->lacks] = true;
    return true;
}

struct linking {
    const td_links *links;
    uint8_t root[TANDEM_HASH_BYTES];
    enum { UNKNOWN, ANCHORED, LOOSE } lacks[TD_LACKS_MAX];
};

/* Is the root behind (seq, hash)? What has a smaller seq is known already. */
static bool is_anchored(struct linking *linking, uint64_t seq, const uint8_t *hash)
{
    const td_op_link *link;
    const td_lack *lack;
    size_t at;

    if (seq == 0)
        return memcmp(hash, linking->root, TANDEM_HASH_BYTES) == 0;
    if ((link = link_find(linking->links, seq, hash)))
        return link->anchored;
    if (!(lack = lack_find(linking->links, seq, hash)))
        return false;
    at = (size_t)(lack - linking->links->lacks);
    if (linking->lacks[at] == UNKNOWN)
        linking->lacks[at] =
            is_anchored(linking, lack->first - 1, lack->predecessor) ? ANCHORED : LOOSE;
    return linking->lacks[at] == ANCHORED;
}

/* Does it go on with another one's job on another document or branch? */
static bool is_elsewhere(const td_links *links, const td_op_link *link)
{
    const td_op_link *before = link_find(links, link->seq - 1, link->predecessor);

    return before && before->continues && before->place != link->place;
}

static void anchor(td_links *links, tandem_slice collection, bool loose)
{
    struct linking linking = {.links = links};

    td_chain_root(collection, linking.root);
    for (size_t i = 0; i < links->count; i++) {
        td_op_link *link = &links->links[i];

        link->anchored = is_anchored(&linking, link->seq - 1, link->predecessor) &&
                         !(loose && is_elsewhere(links, link));
    }
}

void td_links_check(td_links *links, tandem_slice collection, bool loose,
                    void (*report)(void *context, const td_op_link *link, const char *what),
                    void *context, td_head *heads_out, unsigned *count_out)
{
    bool lack_followed[TD_LACKS_MAX] = {false};
    uint8_t root[TANDEM_HASH_BYTES];
    unsigned count = 0;

    td_chain_root(collection, root);
    if (links->lack_count > TD_LACKS_MAX) {
        report(context, &(td_op_link){.seq = links->lacks[0].first}, "more is lacking than may be");
        links->lack_count = TD_LACKS_MAX;
    }
    if (links->count)
        qsort(links->links, links->count, sizeof(links->links[0]), link_compare);
    if (links->lack_count)
        qsort(links->lacks, links->lack_count, sizeof(links->lacks[0]), lack_compare);
    anchor(links, collection, loose);
    for (size_t i = 0; i < links->count; i++) {
        const td_op_link *link = &links->links[i];

        if (!follow(links, root, link->seq - 1, link->predecessor, lack_followed) && !loose)
            report(context, link, "its predecessor is neither held nor lacking");
        if (!loose && is_elsewhere(links, link))
            report(context, link, "the job that it belongs to is on another document or branch");
    }
    for (size_t i = 0; i < links->lack_count; i++) {
        const td_lack *lack = &links->lacks[i];
        const td_op_link where = {.seq = lack->first};
        bool of_lack[TD_LACKS_MAX] = {false}, *mark = lack_followed[i] ? lack_followed : of_lack;
        td_op_link *before = link_find(links, lack->first - 1, lack->predecessor);
        bool was_followed = before && before->followed;

        if (!follow(links, root, lack->first - 1, lack->predecessor, mark))
            report(context, &where, "it is lacking, and its predecessor is neither held nor lacking");
        if (before && !lack_followed[i])
            before->followed = was_followed;
        if (lack->followed != lack_followed[i])
            report(context, &where, "it is lacking, and what is said of what follows it is wrong");
        if (link_find(links, lack->last, lack->hash))
            report(context, &where, "it is said to be lacking, and is held");
    }
    for (size_t i = 0; i < links->count; i++) {
        const td_op_link *link = &links->links[i];

        if (link->followed || !link->anchored)
            continue;
        if (link->continues)
            report(context, link, "the rest of its job is missing");
        if (count < TANDEM_HEADS_MAX) {
            heads_out[count].seq = link->seq;
            memcpy(heads_out[count].hash, link->hash, TANDEM_HASH_BYTES);
        }
        count++;
    }
    *count_out = count;
}

bool td_links_are_anchored(const td_links *links, uint64_t seq, const uint8_t *hash)
{
    const td_op_link *link = link_find(links, seq, hash);

    return link && link->anchored;
}
