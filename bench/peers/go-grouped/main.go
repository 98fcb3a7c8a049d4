// The counter in Go by somebody who knows group commit: one goroutine commits all visits that
// queued during the last commit. It has no fence, no deadlines, and no care for outages.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v4"
	"github.com/valyala/fasthttp"
	"gopkg.in/redis.v5"
)

// The total is one row, which no visit waits for: there is one committer.
const tables = `
CREATE TABLE IF NOT EXISTS acessos
    (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 256) PRIMARY KEY,
     momento timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS total (visits bigint NOT NULL) WITH (fillfactor = 10);
CREATE OR REPLACE FUNCTION emptied() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN UPDATE total SET visits = 0; RETURN NULL; END';
CREATE OR REPLACE TRIGGER emptied AFTER TRUNCATE ON acessos EXECUTE FUNCTION emptied();
DELETE FROM total;
INSERT INTO total SELECT count(*) FROM acessos`

const commit = `
WITH visits AS (INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, $1::integer))
UPDATE total SET visits = visits + $1::integer RETURNING visits`

const maxBatch = 4096

// A count is both numbers of a visit; a total of 0 says that a store failed.
type count struct{ total, cache int64 }

var (
	queue   = make(chan chan count, 1<<16)
	waiters = sync.Pool{New: func() any { return make(chan count, 1) }}
)

// The page around its two numbers, filled up to PAGE_BYTES.
var page = func() [3]string {
	start := "<!doctype html>\n<html lang=\"pt-BR\">\n<head><meta charset=\"utf-8\">" +
		"<title>Contador de visitas</title></head>\n<body>\n<h1>Contador de visitas</h1>\n" +
		"<p>Total de acessos (PostgreSQL): <strong>"
	middle := "</strong></p>\n<p>Contador em cache (Redis): <strong>"
	end := "</strong></p>\n</body>\n</html>\n<!---->\n"
	bytes, _ := strconv.Atoi(os.Getenv("PAGE_BYTES"))
	if rest := bytes - len(start) - len(middle) - len(end); rest > 0 {
		end = strings.Replace(end, "<!--", "<!--"+strings.Repeat("-", rest), 1)
	}
	return [3]string{start, middle, end}
}()

func main() {
	ctx := context.Background()
	database, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s",
		os.Getenv("DB_HOST"), setting("DB_PORT", "5432"), os.Getenv("DB_USER"),
		os.Getenv("DB_PASSWORD"), os.Getenv("DB_NAME")))
	if err != nil {
		log.Fatal(err)
	}
	if _, err = database.Exec(ctx, tables); err != nil {
		log.Fatal(err)
	}
	if _, err = database.Prepare(ctx, "commit", commit); err != nil {
		log.Fatal(err)
	}
	cache := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_HOST") + ":" + setting("REDIS_PORT", "6379")})
	go commitBatches(ctx, database, cache)
	address := setting("HOST", "127.0.0.1") + ":" + setting("PORT", "5000")
	log.Fatal(fasthttp.ListenAndServe(address, serve))
}

func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// A batch is counted in Redis while the next one is committed.
func commitBatches(ctx context.Context, database *pgx.Conn, cache *redis.Client) {
	for {
		batch := append(make([]chan count, 0, 256), <-queue)
	more:
		for len(batch) < maxBatch {
			select {
			case waiter := <-queue:
				batch = append(batch, waiter)
			default:
				break more
			}
		}
		var total int64
		if err := database.QueryRow(ctx, "commit", len(batch)).Scan(&total); err != nil {
			log.Print(err)
		}
		go answer(batch, total, cache)
	}
}

func answer(batch []chan count, total int64, cache *redis.Client) {
	last := count{total: total}
	if total > 0 {
		var err error
		if last.cache, err = cache.IncrBy("contador_cache", int64(len(batch))).Result(); err != nil {
			log.Print(err)
			last.total = 0
		}
	}
	for i, waiter := range batch {
		left := int64(len(batch) - 1 - i)
		if last.total == 0 {
			left = 0
		}
		waiter <- count{last.total - left, last.cache - left}
	}
}

func serve(ctx *fasthttp.RequestCtx) {
	if string(ctx.Path()) != "/" {
		ctx.WriteString("ok\n")
		return
	}
	waiter := waiters.Get().(chan count)
	queue <- waiter
	counted := <-waiter
	waiters.Put(waiter)
	switch {
	case counted.total == 0:
		ctx.Error("a store is down\n", fasthttp.StatusServiceUnavailable)
	case string(ctx.Request.Header.Peek("Accept")) == "application/json":
		ctx.SetContentType("application/json")
		fmt.Fprintf(ctx, `{"total":%d,"cache":%d}`, counted.total, counted.cache)
	default:
		ctx.SetContentType("text/html; charset=utf-8")
		body := append(ctx.Response.SwapBody(nil)[:0], page[0]...)
		body = strconv.AppendInt(body, counted.total, 10)
		body = append(body, page[1]...)
		body = strconv.AppendInt(body, counted.cache, 10)
		ctx.Response.SwapBody(append(body, page[2]...))
	}
}
