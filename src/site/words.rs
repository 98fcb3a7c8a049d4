//! What the page says, in each language.

use super::negotiation::Language;

#[derive(Debug)]
pub(super) struct Words {
    pub(super) language: Language,
    pub(super) lang: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) heading: &'static str,
    pub(super) total: &'static str,
    /// With the ledger in a database.
    pub(super) rows: &'static str,
    /// With the ledger in a file.
    pub(super) rows_in_file: &'static str,
    /// With the counter in Redis.
    pub(super) cache: &'static str,
    pub(super) cache_note: &'static str,
    pub(super) unavailable: &'static str,
    pub(super) cache_down: &'static str,
    /// With the counter in this process.
    pub(super) memory: &'static str,
    pub(super) memory_note: &'static str,
    pub(super) history: &'static str,
    pub(super) choose: &'static str,
    /// What each of the periods shows: links to its chart.
    pub(super) links: [&'static str; 4],
    pub(super) captions: [&'static str; 4],
    pub(super) sum: &'static str,
    pub(super) peak: &'static str,
    /// Before the time of a peak, by period.
    pub(super) at: [&'static str; 4],
    pub(super) to: &'static str,
    pub(super) today: &'static str,
    pub(super) week: &'static str,
    /// A million and a thousand million, on the axis.
    pub(super) units: [&'static str; 2],
    pub(super) no_history: &'static str,
    pub(super) table: &'static str,
    pub(super) columns: [&'static str; 2],
    pub(super) download: &'static str,
    pub(super) utc: &'static str,
    pub(super) stores: &'static str,
    pub(super) file: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) starting: &'static str,
    pub(super) outage: Outage,
}

/// Why there is no page. Each reason is a headline and a sentence; `{}` is the ledger.
#[derive(Debug)]
pub(super) struct Outage {
    /// In the middle of a sentence; the ledger is PostgreSQL, or a file.
    pub(super) ledger: [&'static str; 2],
    pub(super) is_starting: [&'static str; 2],
    pub(super) ledger_down: [&'static str; 2],
    pub(super) overloaded: [&'static str; 2],
    pub(super) late: [&'static str; 2],
    pub(super) closing: [&'static str; 2],
    pub(super) rate: [&'static str; 2],
    /// `{}` is the number of seconds.
    pub(super) again: &'static str,
    pub(super) now: &'static str,
    pub(super) last_total: &'static str,
    /// In Redis, or in this process.
    pub(super) last_cache: [&'static str; 2],
    pub(super) unknown: &'static str,
}

pub(super) fn words(language: Language) -> &'static Words {
    match language {
        Language::Portuguese => &PORTUGUESE,
        Language::English => &ENGLISH,
    }
}

static PORTUGUESE: Words = Words {
    language: Language::Portuguese,
    lang: "pt-BR",
    title: "Visitas",
    description: "Quantas visitas esta página já teve.",
    heading: "Contador de visitas",
    total: "Total de visitas",
    rows: "Cada visita é uma linha no PostgreSQL.",
    rows_in_file: "Cada visita é uma linha em um arquivo no servidor.",
    cache: "Desde que o cache iniciou",
    cache_note: "Contadas na memória do Redis.",
    unavailable: "Indisponível",
    cache_down: "A sua visita já está no total; este número volta sozinho.",
    memory: "Desde que o servidor iniciou",
    memory_note: "Contadas na memória; recomeçam do zero quando ele reinicia.",
    history: "Histórico",
    choose: "Período",
    links: ["1 hora", "2 dias", "90 dias", "2 anos"],
    captions: [
        "Visitas por minuto",
        "Visitas por hora",
        "Visitas por dia",
        "Visitas por mês",
    ],
    sum: "no total",
    peak: "pico de",
    at: ["às", "em", "em", "em"],
    to: "até",
    today: "Hoje",
    week: "Esta semana",
    units: [" mi", " bi"],
    no_history: "O histórico está indisponível no momento.",
    table: "Ver como tabela",
    columns: ["Horário", "Visitas"],
    download: "Baixar",
    utc: "Horários em UTC.",
    stores: "Onde as visitas ficam guardadas",
    file: "Arquivo local",
    up: "no ar",
    down: "fora do ar",
    starting: "conectando",
    outage: Outage {
        ledger: ["o PostgreSQL", "o arquivo local"],
        is_starting: [
            "O contador está iniciando",
            "Ele espera que {} responda; esta visita não foi contada.",
        ],
        ledger_down: [
            "O contador está fora do ar",
            "No momento {} não responde; esta visita não foi contada.",
        ],
        overloaded: [
            "Visitas demais ao mesmo tempo",
            "A fila está cheia; esta visita não foi contada.",
        ],
        late: [
            "A resposta demorou demais",
            "Até agora {} não respondeu; talvez esta visita tenha sido contada.",
        ],
        closing: [
            "O contador está reiniciando",
            "Ele volta em instantes; esta visita não foi contada.",
        ],
        rate: [
            "Visitas demais do seu endereço",
            "Esta não foi contada; a próxima pode ser.",
        ],
        again: "Nova tentativa automática em {} s.",
        now: "Tentar agora",
        last_total: "Último total conhecido",
        last_cache: ["Último valor do cache", "Desde que o servidor iniciou"],
        unknown: "ainda desconhecido",
    },
};

static ENGLISH: Words = Words {
    language: Language::English,
    lang: "en",
    title: "Visits",
    description: "How many visits this page has had.",
    heading: "Visit counter",
    total: "Total visits",
    rows: "Each visit is a row in PostgreSQL.",
    rows_in_file: "Each visit is a row in a file on the server.",
    cache: "Since the cache started",
    cache_note: "Counted in Redis, in memory.",
    unavailable: "Unavailable",
    cache_down: "Your visit is in the total; this number will be back.",
    memory: "Since the server started",
    memory_note: "Counted in memory; a restart sets it back to zero.",
    history: "History",
    choose: "Period",
    links: ["1 hour", "2 days", "90 days", "2 years"],
    captions: [
        "Visits per minute",
        "Visits per hour",
        "Visits per day",
        "Visits per month",
    ],
    sum: "in total",
    peak: "peak of",
    at: ["at", "on", "on", "in"],
    to: "to",
    today: "Today",
    week: "This week",
    units: ["M", "B"],
    no_history: "The history is unavailable at the moment.",
    table: "Show as a table",
    columns: ["Time", "Visits"],
    download: "Download",
    utc: "Times are in UTC.",
    stores: "Where visits are kept",
    file: "Local file",
    up: "up",
    down: "down",
    starting: "connecting",
    outage: Outage {
        ledger: ["PostgreSQL", "the local file"],
        is_starting: [
            "The counter is starting",
            "It is waiting for {}; this visit was not counted.",
        ],
        ledger_down: [
            "The counter is down",
            "At the moment {} does not answer; this visit was not counted.",
        ],
        overloaded: [
            "Too many visits at once",
            "The queue is full; this visit was not counted.",
        ],
        late: [
            "The answer took too long",
            "So far {} has not answered; this visit may have been counted.",
        ],
        closing: [
            "The counter is restarting",
            "It will be back in a moment; this visit was not counted.",
        ],
        rate: [
            "Too many visits from your address",
            "This one was not counted; the next one may be.",
        ],
        again: "Trying again by itself in {} s.",
        now: "Try now",
        last_total: "Last known total",
        last_cache: ["Last value of the cache", "Since the server started"],
        unknown: "not known yet",
    },
};
