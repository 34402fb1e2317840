/*
 * A test of a model: does it hold what the library asks of it? Here it is a built-in one.
 */
#include <stdio.h>

#include <tandem/tandem.h>

/* One input, different with each random number. */
static void draw(void *context, const char *verb, uint64_t random, char json[TANDEM_DRAWN_BYTES])
{
    (void)context;
    (void)verb;
    snprintf(json, TANDEM_DRAWN_BYTES, "%d", (int)(random % 100) - 50);
}

int main(void)
{
    static const char *const verbs[] = {"ADD", NULL};
    tandem_model_check_options options = TANDEM_MODEL_CHECK_OPTIONS_INIT;
    char why[TANDEM_MODEL_WHY_BYTES];

    options.verbs = verbs;
    options.draw = draw;
    if (tandem_model_check(&tandem_model_counter, &options, why) != TANDEM_OK) {
        printf("%s\n", why);
        return 1;
    }
    puts("all laws hold");
    return 0;
}
