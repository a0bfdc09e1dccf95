// Zoekt as a peer of the suite `search`: builds the shards of a folder, and answers a list of queries in this process.
//
//	zoekt index FOLDER SHARDS             {"files", "wall_seconds"}
//	zoekt search -runs N SHARDS <QUERIES  a list of {"files", "matches", "page_ms", "exhaustive_ms"}
//
// QUERIES is a JSON list of queries in zoekt's language. Files of every size are indexed, without ctags. A page is what
// zoekt's own JSON interface gives for 50 files, its limits on matches included; an exhaustive search has no limit
// and shows 50 as well.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/sourcegraph/zoekt"
	"github.com/sourcegraph/zoekt/build"
	zoektjson "github.com/sourcegraph/zoekt/json"
	"github.com/sourcegraph/zoekt/query"
	"github.com/sourcegraph/zoekt/shards"
)

const (
	pageFiles = 50
	// A slow search is not repeated any more after this time.
	enough    = 3 * time.Second
	unlimited = 1 << 40
)

type indexed struct {
	Files       int     `json:"files"`
	WallSeconds float64 `json:"wall_seconds"`
}

type answered struct {
	Files        int     `json:"files"`
	Matches      int     `json:"matches"`
	PageMillis   float64 `json:"page_ms"`
	ExhaustiveMs float64 `json:"exhaustive_ms"`
}

func main() {
	// Zoekt reports its progress there.
	log.SetOutput(os.Stderr)
	runs := flag.Int("runs", 3, "runs of each search; the median counts")
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: zoekt [-runs N] index FOLDER SHARDS | search SHARDS") }
	flag.Parse()
	var out any
	var err error
	switch arguments := flag.Args(); {
	case len(arguments) == 3 && arguments[0] == "index":
		out, err = index(arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "search":
		out, err = search(arguments[1], *runs)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "zoekt:", err)
		os.Exit(1)
	}
}

// index puts all regular files of a folder into shards, the folder of git aside.
func index(folder, into string) (*indexed, error) {
	start := time.Now()
	options := build.Options{
		IndexDir:              into,
		DisableCTags:          true,
		LargeFiles:            []string{"**"},
		RepositoryDescription: zoekt.Repository{Name: "bench"},
	}
	options.SetDefaults()
	builder, err := build.NewBuilder(options)
	if err != nil {
		return nil, err
	}
	done := &indexed{}
	err = filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		done.Files++
		return builder.AddFile(name, content)
	})
	if err != nil {
		return nil, err
	}
	if err := builder.Finish(); err != nil {
		return nil, err
	}
	done.WallSeconds = time.Since(start).Seconds()
	return done, nil
}

// search answers the queries of standard input, each for itself, warm.
func search(folder string, runs int) ([]answered, error) {
	var queries []string
	if err := json.NewDecoder(os.Stdin).Decode(&queries); err != nil {
		return nil, err
	}
	searcher, err := shards.NewDirectorySearcher(folder)
	if err != nil {
		return nil, err
	}
	defer searcher.Close()
	answers := make([]answered, 0, len(queries))
	for _, text := range queries {
		answer, err := one(searcher, text, runs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		answers = append(answers, *answer)
	}
	return answers, nil
}

func one(searcher zoekt.Streamer, text string, runs int) (*answered, error) {
	ctx := context.Background()
	parsed, err := query.Parse(text)
	if err != nil {
		return nil, err
	}
	exhaustive := func() (*zoekt.SearchResult, error) {
		return searcher.Search(ctx, parsed, &zoekt.SearchOptions{
			ShardMaxMatchCount: unlimited,
			TotalMaxMatchCount: unlimited,
			MaxDocDisplayCount: pageFiles,
			MaxWallTime:        time.Hour,
		})
	}
	page := func() error {
		options := &zoekt.SearchOptions{MaxDocDisplayCount: pageFiles}
		if err := zoektjson.CalculateDefaultSearchLimits(ctx, parsed, searcher, options); err != nil {
			return err
		}
		options.SetDefaults()
		_, err := searcher.Search(ctx, parsed, options)
		return err
	}
	all, err := exhaustive()
	if err != nil {
		return nil, err
	}
	answer := &answered{Files: all.FileCount, Matches: all.MatchCount}
	if answer.PageMillis, err = median(runs, page); err != nil {
		return nil, err
	}
	answer.ExhaustiveMs, err = median(runs, func() error {
		_, err := exhaustive()
		return err
	})
	return answer, err
}

// median of the milliseconds that some runs take, after one that is not counted.
func median(runs int, work func() error) (float64, error) {
	var taken []float64
	begun := time.Now()
	for number := 0; number <= runs && (len(taken) == 0 || time.Since(begun) < enough); number++ {
		start := time.Now()
		if err := work(); err != nil {
			return 0, err
		}
		if number > 0 {
			taken = append(taken, time.Since(start).Seconds()*1e3)
		}
	}
	sort.Float64s(taken)
	return (taken[(len(taken)-1)/2] + taken[len(taken)/2]) / 2, nil
}
