#include "reactor/models/text_sequence.h"

#include <assert.h>
#include <stdlib.h>

#include "store/planted.h"
#include "store/utf8.h"

enum { BLOCK_NODES = 256 };

/* What the header says they cost. */
_Static_assert(sizeof(void *) != 8 || (sizeof(td_run_node) == 72 && sizeof(td_insertion) == 24),
               "of 64 bits");

struct block {
    struct block *next;
    td_run_node nodes[BLOCK_NODES];
};

struct td_sequence {
    td_run_node *root;
    td_author *authors; /* one more than are counted: whose the pretended ones are */
    uint32_t author_count, author_capacity;
    uint64_t bytes;
    uint64_t dice; /* the priorities' */
    bool branched;
    td_run_node *spare; /* linked by next_piece */
    size_t spare_count;
    struct block *blocks;
    bool pretending;
    bool was_branched;
    td_numbers *deleted; /* while pretending */
    size_t deleted_count, deleted_capacity;
    td_character *branchings; /* behind which something was anchored for the first time, while pretending */
    size_t branching_count, branching_capacity;
};

/* ---- Memory ---- */

/* Room for `more` elements of size behind count. Grows by half, so that the slack stays small. */
static tandem_err reserve(void **list, size_t size, size_t count, size_t more, size_t *capacity)
{
    size_t wanted = count + more, grown = *capacity + *capacity / 2;
    void *moved;

    if (wanted <= *capacity)
        return TANDEM_OK;
    if (grown < wanted)
        grown = wanted < 8 ? 8 : wanted;
    if (!(moved = realloc(*list, grown * size)))
        return TANDEM_E_NOMEM;
    *list = moved;
    *capacity = grown;
    return TANDEM_OK;
}

static tandem_err nodes_reserve(td_sequence *sequence, size_t count)
{
    while (sequence->spare_count < count) {
        struct block *block = malloc(sizeof(*block));

        if (!block)
            return TANDEM_E_NOMEM;
        block->next = sequence->blocks;
        sequence->blocks = block;
        for (size_t i = 0; i < BLOCK_NODES; i++) {
            block->nodes[i].next_piece = sequence->spare;
            sequence->spare = &block->nodes[i];
        }
        sequence->spare_count += BLOCK_NODES;
    }
    return TANDEM_OK;
}

static td_run_node *node_take(td_sequence *sequence)
{
    td_run_node *node = sequence->spare;
    uint64_t z;

    assert(node && "room was made for it");
    sequence->spare = node->next_piece;
    sequence->spare_count--;
    /* splitmix64: any priorities do, as long as they look drawn. */
    z = sequence->dice += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    *node = (td_run_node){.priority = (uint32_t)(z >> 32)};
    return node;
}

static void node_give_back(td_sequence *sequence, td_run_node *node)
{
    node->next_piece = sequence->spare;
    sequence->spare = node;
    sequence->spare_count++;
}

static void author_release(td_author *author)
{
    free(author->insertions);
    free(author->text);
    free(author->index);
}

tandem_err td_sequence_open(td_sequence **out)
{
    td_sequence *sequence = calloc(1, sizeof(*sequence));

    if (!sequence)
        return TANDEM_E_NOMEM;
    if (!(sequence->authors = calloc(1, sizeof(sequence->authors[0])))) {
        free(sequence);
        return TANDEM_E_NOMEM;
    }
    sequence->author_capacity = 1;
    *out = sequence;
    return TANDEM_OK;
}

void td_sequence_free(td_sequence *sequence)
{
    if (!sequence)
        return;
    while (sequence->blocks) {
        struct block *block = sequence->blocks;

        sequence->blocks = block->next;
        free(block);
    }
    for (uint32_t i = 0; i < sequence->author_capacity; i++)
        author_release(&sequence->authors[i]);
    free(sequence->authors);
    free(sequence->deleted);
    free(sequence->branchings);
    free(sequence);
}

/* ---- The treap ---- */

static uint32_t visible(const td_run_node *node)
{
    return node->deleted ? 0 : node->count;
}

static uint64_t below(const td_run_node *node)
{
    return node ? node->visible_below : 0;
}

static void sum(td_run_node *node)
{
    node->visible_below = below(node->left) + below(node->right) + visible(node);
}

static void more_visible(td_run_node *node, uint64_t count)
{
    for (; node; node = node->parent)
        node->visible_below += count;
}

static void less_visible(td_run_node *node, uint64_t count)
{
    for (; node; node = node->parent)
        node->visible_below -= count;
}

/* Put node where its parent is. */
static void rotate_up(td_sequence *sequence, td_run_node *node)
{
    td_run_node *parent = node->parent, *above = parent->parent;

    if (parent->left == node) {
        if ((parent->left = node->right))
            parent->left->parent = parent;
        node->right = parent;
    } else {
        if ((parent->right = node->left))
            parent->right->parent = parent;
        node->left = parent;
    }
    parent->parent = node;
    node->parent = above;
    if (!above)
        sequence->root = node;
    else if (above->left == parent)
        above->left = node;
    else
        above->right = node;
    sum(parent);
    sum(node);
}

static td_run_node *leftmost(td_run_node *node)
{
    while (node && node->left)
        node = node->left;
    return node;
}

static td_run_node *previous(const td_run_node *node)
{
    if (node->left) {
        td_run_node *found = node->left;

        while (found->right)
            found = found->right;
        return found;
    }
    while (node->parent && node->parent->left == node)
        node = node->parent;
    return node->parent;
}

td_run_node *td_sequence_next(const td_run_node *node)
{
    if (node->right)
        return leftmost(node->right);
    while (node->parent && node->parent->right == node)
        node = node->parent;
    return node->parent;
}

td_run_node *td_sequence_first(const td_sequence *sequence)
{
    return leftmost(sequence->root);
}

/* Right behind another one; NULL: first. */
static void tree_insert(td_sequence *sequence, td_run_node *behind, td_run_node *node)
{
    td_run_node *parent = behind && !behind->right ? behind
                                                   : leftmost(behind ? behind->right
                                                                     : sequence->root);

    node->left = node->right = NULL;
    node->parent = parent;
    node->visible_below = visible(node);
    if (!parent)
        sequence->root = node;
    else if (parent == behind)
        parent->right = node;
    else
        parent->left = node;
    more_visible(parent, node->visible_below);
    while (node->parent && node->priority > node->parent->priority)
        rotate_up(sequence, node);
}

static void tree_remove(td_sequence *sequence, td_run_node *node)
{
    td_run_node *parent;

    while (node->left || node->right)
        rotate_up(sequence, !node->right || (node->left && node->left->priority >
                                                               node->right->priority)
                                ? node->left
                                : node->right);
    parent = node->parent;
    if (!parent)
        sequence->root = NULL;
    else if (parent->left == node)
        parent->left = NULL;
    else
        parent->right = NULL;
    less_visible(parent, visible(node));
}

/* ---- Authors ---- */

uint32_t td_sequence_author_count(const td_sequence *sequence)
{
    return sequence->author_count;
}

td_author *td_sequence_author(const td_sequence *sequence, uint32_t author)
{
    return &sequence->authors[author];
}

uint32_t td_sequence_find_author(const td_sequence *sequence, const uint8_t *origin)
{
    for (uint32_t i = 0; i < sequence->author_count; i++)
        if (!memcmp(sequence->authors[i].origin, origin, TANDEM_ORIGIN_BYTES))
            return i;
    return TD_NOBODY;
}

tandem_err td_sequence_add_author(td_sequence *sequence, const uint8_t *origin, uint32_t *out)
{
    uint32_t capacity = sequence->author_capacity * 2;
    td_author *grown;

    assert(!sequence->pretending);
    if ((*out = td_sequence_find_author(sequence, origin)) != TD_NOBODY)
        return TANDEM_OK;
    if (sequence->author_count + 1 >= sequence->author_capacity) {
        if (!(grown = realloc(sequence->authors, capacity * sizeof(*grown))))
            return TANDEM_E_NOMEM;
        memset(&grown[sequence->author_capacity], 0,
               (capacity - sequence->author_capacity) * sizeof(*grown));
        sequence->authors = grown;
        sequence->author_capacity = capacity;
    }
    *out = sequence->author_count++;
    memcpy(sequence->authors[*out].origin, origin, TANDEM_ORIGIN_BYTES);
    return TANDEM_OK;
}

const td_insertion *td_sequence_find(const td_sequence *sequence, uint32_t author, uint64_t hlc)
{
    td_author *its = &sequence->authors[author];
    size_t low = 0, high = its->insertion_count;

    if (its->found < high && its->insertions[its->found].hlc <= hlc)
        low = its->found;
    if (low + 2 < high && its->insertions[low + 2].hlc > hlc)
        high = low + 2;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (its->insertions[middle].hlc < hlc)
            low = middle + 1;
        else
            high = middle;
    }
    while (low > 0 && low < its->insertion_count && its->insertions[low - 1].hlc == hlc)
        low--;
    if (low == its->insertion_count || its->insertions[low].hlc != hlc)
        return NULL;
    its->found = low;
    return &its->insertions[low];
}

const td_insertion *td_sequence_find_seq(const td_sequence *sequence, uint32_t author, uint64_t seq)
{
    const td_author *its = &sequence->authors[author];
    size_t low = 0, high = its->insertion_count;

    /* Mostly of the same job: not far. There a fork may stand in between. */
    for (size_t i = high, left = TANDEM_JOB_OPERATIONS_MAX; i-- > 0 && left-- > 0;)
        if (its->insertions[i].seq == seq)
            return &its->insertions[i];
    /* Of what was committed together seqs ascend. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (its->insertions[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low < its->insertion_count && its->insertions[low].seq == seq ? &its->insertions[low]
                                                                         : NULL;
}

uint32_t td_sequence_insertion_size(const td_sequence *sequence, uint32_t author,
                                    const td_insertion *insertion)
{
    const td_author *its = &sequence->authors[author];
    bool is_last = insertion == &its->insertions[its->insertion_count - 1];

    return (is_last ? its->characters : insertion[1].first) - insertion->first;
}

const td_insertion *td_sequence_insertion_of(const td_sequence *sequence, td_character character)
{
    const td_author *its = &sequence->authors[character.author];
    size_t low = 0, high = its->insertion_count;

    /* The last one that begins at it or before. */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (its->insertions[middle].first <= character.number)
            low = middle;
        else
            high = middle;
    }
    return &its->insertions[low];
}

/* ---- Pieces ---- */

static td_run_node *piece_of(const td_sequence *sequence, td_character character)
{
    td_run_node *piece = sequence->authors[character.author]
                             .index[character.number / TD_RUN_CHARACTERS_MAX];

    while (character.number - piece->first >= piece->count)
        piece = piece->next_piece;
    return piece;
}

/* The index leads to this piece for what it holds. */
static void index_piece(td_author *author, td_run_node *piece)
{
    uint32_t at = (piece->first + TD_RUN_CHARACTERS_MAX - 1) / TD_RUN_CHARACTERS_MAX;

    for (; at * TD_RUN_CHARACTERS_MAX < piece->first + piece->count; at++)
        author->index[at] = piece;
}

/* The first count characters stay, the others become a run behind it. */
static void split(td_sequence *sequence, td_run_node *piece, uint32_t count)
{
    td_author *author = &sequence->authors[piece->author];
    td_run_node *rest = node_take(sequence);
    uint32_t priority = rest->priority, bytes;

    assert(count > 0 && count < piece->count);
    bytes = !piece->bytes               ? 0
            : piece->bytes == piece->count ? count
                                           : (uint32_t)td_utf8_offset(
                                                 author->text + piece->bytes_at, count);
    *rest = *piece;
    rest->priority = priority;
    rest->first += count;
    rest->count -= count;
    rest->bytes_at += bytes;
    rest->bytes -= bytes;
    if (!piece->deleted)
        less_visible(piece, rest->count);
    piece->count = count;
    piece->bytes = bytes;
    piece->branched = true;
    piece->next_piece = rest;
    if (author->last_piece == piece)
        author->last_piece = rest;
    tree_insert(sequence, piece, rest);
    index_piece(author, rest);
}

/* Is other the deleted piece that goes on where this one, deleted too, ends? */
static bool goes_on(const td_run_node *piece, const td_run_node *other)
{
    return other && piece->deleted && other->deleted && piece->author == other->author &&
           piece->branched && piece->first + piece->count == other->first &&
           piece->count + other->count <= TD_RUN_CHARACTERS_MAX;
}

static void absorb(td_sequence *sequence, td_run_node *piece, td_run_node *other)
{
    td_author *author = &sequence->authors[piece->author];

    piece->bytes = 0; /* nobody reads it any more */
    piece->count += other->count;
    piece->branched = other->branched;
    piece->next_piece = other->next_piece;
    if (author->last_piece == other)
        author->last_piece = piece;
    tree_remove(sequence, other);
    node_give_back(sequence, other);
    index_piece(author, piece);
}

static void link_piece(td_author *author, td_run_node *piece)
{
    if (author->last_piece)
        author->last_piece->next_piece = piece;
    else
        author->first_piece = piece;
    author->last_piece = piece;
    index_piece(author, piece);
}

/* ---- Inserting ---- */

tandem_err td_sequence_reserve(td_sequence *sequence, uint32_t author, uint32_t characters,
                               size_t bytes, size_t deletions)
{
    size_t pieces = characters / TD_RUN_CHARACTERS_MAX + 2 + 2 * deletions, capacity;
    td_author *its;
    tandem_err err;

    if ((err = nodes_reserve(sequence, pieces)) != TANDEM_OK)
        return err;
    if (sequence->pretending &&
        ((err = reserve((void **)&sequence->deleted, sizeof(sequence->deleted[0]),
                        sequence->deleted_count, deletions,
                        &sequence->deleted_capacity)) != TANDEM_OK ||
         (err = reserve((void **)&sequence->branchings, sizeof(sequence->branchings[0]),
                        sequence->branching_count, 1, &sequence->branching_capacity)) != TANDEM_OK))
        return err;
    if (!characters)
        return TANDEM_OK;
    its = &sequence->authors[author];
    if (characters > TD_TEXT_CHARACTERS_MAX - its->characters)
        return TANDEM_E_LIMIT;
    capacity = (size_t)its->text_capacity;
    if ((err = reserve((void **)&its->insertions, sizeof(its->insertions[0]), its->insertion_count,
                       1, &its->insertion_capacity)) != TANDEM_OK ||
        (err = reserve((void **)&its->index, sizeof(its->index[0]), 0,
                       (its->characters + characters) / TD_RUN_CHARACTERS_MAX + 1,
                       &its->index_capacity)) != TANDEM_OK ||
        (err = reserve((void **)&its->text, 1, (size_t)its->text_size, bytes, &capacity)) !=
            TANDEM_OK)
        return err;
    its->text_capacity = capacity;
    return TANDEM_OK;
}

static void note_branching(td_sequence *sequence, td_character character)
{
    if (sequence->pretending && character.author != sequence->author_count)
        sequence->branchings[sequence->branching_count++] = character;
}

/* Behind which run what is anchored so is to stand; NULL: first. */
static td_run_node *open_place(td_sequence *sequence, td_character anchor, bool before)
{
    td_run_node *piece;
    uint32_t offset;

    if (anchor.author == TD_NOBODY) {
        sequence->branched = true;
        return NULL;
    }
    piece = piece_of(sequence, anchor);
    offset = anchor.number - piece->first;
    if (before && offset == 0)
        return previous(piece);
    if (!before && ++offset == piece->count) {
        if (!piece->branched)
            note_branching(sequence, anchor);
        piece->branched = true;
        return piece;
    }
    split(sequence, piece, offset);
    return piece;
}

void td_sequence_insert(td_sequence *sequence, td_character anchor, bool before, uint32_t author,
                        uint64_t hlc, uint64_t seq, tandem_slice text, uint32_t characters)
{
    td_author *its = &sequence->authors[author];
    td_run_node *behind = open_place(sequence, anchor, before);
    uint64_t at = its->text_size;
    size_t used = 0;

    its->insertions[its->insertion_count++] =
        (td_insertion){.hlc = hlc, .seq = seq, .first = its->characters};
    memcpy(its->text + at, text.bytes, text.size);
    its->text_size += text.size;
    sequence->bytes += text.size;
    /* What goes on where its author's last one ended is of its run. */
    if (behind && !before && behind == its->last_piece && !behind->deleted &&
        behind->count + characters <= TD_RUN_CHARACTERS_MAX &&
        behind->bytes_at + behind->bytes == at) {
        behind->count += characters;
        behind->bytes += (uint32_t)text.size;
        behind->branched = false;
        more_visible(behind, characters);
        its->characters += characters;
        index_piece(its, behind);
        return;
    }
    while (characters) {
        td_run_node *piece = node_take(sequence);

        piece->author = author;
        piece->first = its->characters;
        piece->count = characters < TD_RUN_CHARACTERS_MAX ? characters : TD_RUN_CHARACTERS_MAX;
        piece->bytes_at = at + used;
        piece->bytes = (uint32_t)td_utf8_offset(text.bytes + used, piece->count);
        piece->branched = piece->count < characters;
        its->characters += piece->count;
        characters -= piece->count;
        used += piece->bytes;
        tree_insert(sequence, behind, piece);
        link_piece(its, piece);
        behind = piece;
    }
}

/* ---- Deleting ---- */

static void delete_piece(td_sequence *sequence, td_run_node *piece)
{
    td_run_node *before, *behind;

    less_visible(piece, piece->count);
    piece->deleted = true;
    sequence->bytes -= piece->bytes;
    piece->pretended = sequence->pretending;
    if (sequence->pretending)
        return;
    if (goes_on(piece, behind = td_sequence_next(piece)))
        absorb(sequence, piece, behind);
    if ((before = previous(piece)) && goes_on(before, piece))
        absorb(sequence, before, piece);
}

void td_sequence_delete(td_sequence *sequence, td_numbers numbers)
{
    uint32_t at = numbers.first, end = numbers.first + numbers.count;

    if (sequence->pretending && numbers.author != sequence->author_count)
        sequence->deleted[sequence->deleted_count++] = numbers;
    while (at < end) {
        td_run_node *piece = piece_of(sequence, (td_character){numbers.author, at});
        uint32_t piece_end = piece->first + piece->count;

        if (!piece->deleted && at > piece->first && !td_planted(TD_PLANTED_NEIGHBOUR_DELETED)) {
            split(sequence, piece, at - piece->first);
            piece = piece->next_piece;
        }
        if (!piece->deleted && piece_end > end) {
            split(sequence, piece, end - at);
            piece_end = end;
        }
        if (!piece->deleted)
            delete_piece(sequence, piece);
        at = piece_end;
    }
}

/* ---- Pretending ---- */

uint32_t td_sequence_pretend(td_sequence *sequence)
{
    if (!sequence->pretending)
        sequence->was_branched = sequence->branched;
    sequence->pretending = true;
    return sequence->author_count;
}

bool td_sequence_is_pretending(const td_sequence *sequence)
{
    return sequence->pretending;
}

static void undelete(td_sequence *sequence, td_numbers numbers)
{
    uint32_t end = numbers.first + numbers.count;
    td_run_node *piece = piece_of(sequence, (td_character){numbers.author, numbers.first});

    for (; piece && piece->first < end; piece = piece->next_piece) {
        if (!piece->pretended)
            continue;
        piece->deleted = piece->pretended = false;
        sequence->bytes += piece->bytes;
        more_visible(piece, piece->count);
    }
}

void td_sequence_take_back(td_sequence *sequence)
{
    td_author *nobody = &sequence->authors[sequence->author_count];
    td_run_node *piece, *next;

    if (!sequence->pretending)
        return;
    for (piece = nobody->first_piece; piece; piece = next) {
        next = piece->next_piece;
        sequence->bytes -= piece->deleted ? 0 : piece->bytes;
        tree_remove(sequence, piece);
        node_give_back(sequence, piece);
    }
    for (size_t i = 0; i < sequence->deleted_count; i++)
        undelete(sequence, sequence->deleted[i]);
    for (size_t i = 0; i < sequence->branching_count; i++)
        piece_of(sequence, sequence->branchings[i])->branched = false;
    /* The next one is somebody, or pretends anew. */
    nobody->characters = 0;
    nobody->text_size = 0;
    nobody->insertion_count = nobody->found = 0;
    nobody->first_piece = nobody->last_piece = NULL;
    sequence->branched = sequence->was_branched;
    sequence->deleted_count = sequence->branching_count = 0;
    sequence->pretending = false;
}

/* ---- Looking ---- */

uint64_t td_sequence_length(const td_sequence *sequence)
{
    return below(sequence->root);
}

uint64_t td_sequence_bytes(const td_sequence *sequence)
{
    return sequence->bytes;
}

bool td_sequence_branched(const td_sequence *sequence)
{
    return sequence->branched;
}

td_run_node *td_sequence_at(const td_sequence *sequence, uint64_t position, uint32_t *offset_out)
{
    td_run_node *node = sequence->root;

    if (position >= below(node))
        return NULL;
    for (;;) {
        uint64_t left = below(node->left);

        if (position < left) {
            node = node->left;
            continue;
        }
        position -= left;
        if (position < visible(node)) {
            *offset_out = (uint32_t)position;
            return node;
        }
        position -= visible(node);
        node = node->right;
    }
}

tandem_slice td_sequence_text(const td_sequence *sequence, const td_run_node *run)
{
    return tandem_slice_of(sequence->authors[run->author].text + run->bytes_at, run->bytes);
}

/* ---- Reading back ---- */

tandem_err td_sequence_append(td_sequence *sequence, const td_run_node *run)
{
    td_run_node *last = sequence->root, *piece;
    uint32_t priority;

    while (last && last->right)
        last = last->right;
    if (nodes_reserve(sequence, 1) != TANDEM_OK)
        return TANDEM_E_NOMEM;
    piece = node_take(sequence);
    priority = piece->priority;
    *piece = *run;
    piece->priority = priority;
    piece->next_piece = NULL;
    tree_insert(sequence, last, piece);
    sequence->bytes += piece->deleted ? 0 : piece->bytes;
    return TANDEM_OK;
}

static int piece_compare(const void *a, const void *b)
{
    const td_run_node *x = *(td_run_node *const *)a, *y = *(td_run_node *const *)b;

    if (x->author != y->author)
        return x->author < y->author ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static tandem_err link_all(td_sequence *sequence, td_run_node **pieces, size_t count)
{
    uint32_t author = 0, number = 0;

    for (size_t i = 0; i < count; i++) {
        td_author *its;

        while (author < pieces[i]->author && number == sequence->authors[author].characters) {
            author++;
            number = 0;
        }
        its = &sequence->authors[author];
        if (pieces[i]->author != author || pieces[i]->first != number ||
            pieces[i]->count > its->characters - number)
            return TANDEM_E_CORRUPT;
        number += pieces[i]->count;
        link_piece(its, pieces[i]);
    }
    while (author < sequence->author_count && number == sequence->authors[author].characters) {
        author++;
        number = 0;
    }
    return author == sequence->author_count ? TANDEM_OK : TANDEM_E_CORRUPT;
}

tandem_err td_sequence_link(td_sequence *sequence)
{
    td_run_node **pieces;
    size_t count = 0;
    tandem_err err = TANDEM_OK;

    for (td_run_node *run = td_sequence_first(sequence); run; run = td_sequence_next(run))
        count++;
    for (uint32_t i = 0; i < sequence->author_count && err == TANDEM_OK; i++)
        err = reserve((void **)&sequence->authors[i].index, sizeof(td_run_node *), 0,
                      sequence->authors[i].characters / TD_RUN_CHARACTERS_MAX + 1,
                      &sequence->authors[i].index_capacity);
    if (err != TANDEM_OK)
        return err;
    if (!(pieces = malloc((count + 1) * sizeof(*pieces))))
        return TANDEM_E_NOMEM;
    count = 0;
    for (td_run_node *run = td_sequence_first(sequence); run; run = td_sequence_next(run))
        pieces[count++] = run;
    qsort(pieces, count, sizeof(*pieces), piece_compare);
    err = link_all(sequence, pieces, count);
    free(pieces);
    return err;
}

void td_sequence_set_branched(td_sequence *sequence, bool branched)
{
    sequence->branched = branched;
}
